"""The offline model over a real socket, as a plain HTTP client sees it."""

import asyncio
import json
import sys

import httpx
import pytest

from agentstream.infra.offline_model import OfflineModel, closed_port


async def ask(model: OfflineModel, prompt: str, *, key: str = "k", stream: bool = False) -> httpx.Response:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    async with httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {key}"}
        return await client.post(f"{model.base_url}/chat/completions", json=body, headers=headers)


async def test_it_answers_whole_or_streamed_and_remembers_what_it_was_asked() -> None:
    async with OfflineModel() as model:
        whole = await ask(model, "[[say: one two]]")
        assert whole.json()["choices"][0]["message"]["content"] == "one two"
        streamed = await ask(model, "[[say: one two]]", stream=True, key="other")
        lines = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
        assert lines[-1] == "[DONE]"
        deltas = [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]
        assert [delta["content"] for delta in deltas if delta.get("content")] == ["one ", "two"]
        assert [(call.api_key, call.conversation.prompt) for call in model.calls] == [
            ("k", "[[say: one two]]"),
            ("other", "[[say: one two]]"),
        ]


async def test_faults_are_played_as_often_as_asked_for_each_key() -> None:
    async with OfflineModel() as model:
        prompt = "[[fail:429 retry_after=3 times=1]][[say: ok]]"
        for key in ("a", "b"):
            first, second = await ask(model, prompt, key=key), await ask(model, prompt, key=key)
            assert (first.status_code, first.headers["retry-after"], second.status_code) == (429, "3", 200)
        assert (await ask(model, "[[fail:500]]")).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(model, "[[fail:refuse]]")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await ask(model, "[[fail:cut]][[say: one two three four]]", stream=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask(model, "[[fail:hang]]")


async def test_a_wrong_key_a_bad_body_and_a_strange_path_are_told() -> None:
    async with OfflineModel(api_keys=frozenset({"right"})) as model, httpx.AsyncClient() as client:
        assert (await ask(model, "hi", key="wrong")).status_code == 401
        assert (await ask(model, "hi", key="right")).status_code == 200
        for body in (b"{", b"[]", b'{"messages": 1}'):
            assert (await client.post(f"{model.base_url}/chat/completions", content=body)).status_code == 400
        strange = await client.get(f"{model.base_url}/strange")
        assert strange.status_code == 404
        assert "offline model" in strange.text
        assert (await client.get(f"{model.base_url}/models")).json()["data"][0]["id"] == "offline"


async def test_closing_it_cuts_the_calls_under_way() -> None:
    async with OfflineModel() as model:
        call = asyncio.create_task(ask(model, "[[fail:hang]]"))
        while not model.calls:
            await asyncio.sleep(0.01)
    with pytest.raises(httpx.HTTPError):
        await call


async def test_nobody_listens_on_a_closed_port() -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", closed_port())


async def test_it_runs_as_a_program_of_its_own() -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.offline_model", "--port", "0"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        base_url = (await program.stdout.readline()).decode().strip()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{base_url}/models")).status_code == 200
    finally:
        program.terminate()
    assert await program.wait() == 0
