"""The Pi sidecar as an HTTP server: what it answers to whom, and what is left when a client goes away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from pydantic import JsonValue

from agentstream.consumers.harness.port import Failed
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.consumers.harness.sidecar_server import Serving, SidecarServer
from agentstream.infra.offline_model import OfflineModel
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import ToolStarted
from tests.integration.pi_fixtures import Outcome, credentials, eventually, marked, perform, request, settings
from tests.integration.pi_http_fixtures import TOKEN, Served, http_harness, lines_of, run_body, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANGS = '[[tool:bash {"command": "setsid sleep 600 & sleep 600"}]][[say: done]]'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Give a server that wants a token."""
    async with served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[OfflineModel]:
    """Give the offline model."""
    async with OfflineModel() as model:
        yield model


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, JsonValue]:
    """The error of an answer, which gives nothing away about the machine or the program."""
    assert answer.status_code == status, answer.text
    assert not [word for word in ("node:", ".js", "    at ", str(Path.home()), "/tmp", TOKEN) if word in answer.text]
    error: dict[str, JsonValue] = answer.json()["error"]
    assert error["code"] == code
    assert "\n" not in str(error["detail"])
    return error


async def test_health_tells_strangers_only_that_it_lives_and_others_what_it_is(one: Served) -> None:
    async with one.client() as client, one.client(token="") as stranger, one.client(token="wrong") as liar:
        assert (await stranger.get("/health")).json() == {"ok": True, "reason": None}
        known = (await client.get("/health")).json()
        assert (known["ok"], known["protocol"], known["runs"]) == (True, 1, 0)
        assert known["pi"]
        refused(await liar.get("/health"), 401, "unauthorized")


@pytest.mark.parametrize("shown", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
async def test_whoever_does_not_show_the_token_runs_nothing(one: Served, shown: str) -> None:
    async with one.client(token=shown) as client:
        answer = await client.post("/run", json=run_body("http://127.0.0.1:1/v1", "hi"))
        refused(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        refused(await client.get("/nothing"), 401, "unauthorized")


async def test_unknown_paths_are_404_and_wrong_methods_405(one: Served) -> None:
    async with one.client() as client:
        for path in ("/", "/runs", "/health/x", "/toString"):
            refused(await client.get(path), 404, "not_found")
        for method, path, allowed in (
            ("GET", "/run", "POST"),
            ("PUT", "/run", "POST"),
            ("POST", "/health", "GET, HEAD"),
        ):
            answer = await client.request(method, path)
            refused(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [(b"", 1, 1), (b'{"type": "run", x}', 1, 17), (b'{"type":\n "run",\n "key": "sk-secret}', 3, 20), (b"[1,]", 1, 4)],
)
async def test_bad_json_is_400_and_says_where_and_never_what(one: Served, body: bytes, line: int, column: int) -> None:
    async with one.client() as client:
        answer = await client.post("/run", content=body)
    assert refused(answer, 400, "malformed_json")["at"] == {"line": line, "column": column}
    assert "sk-secret" not in answer.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {"provider": "x"}}, "model"),
        ({"messages": []}, "messages"),
        ({"max_turns": 0}, "max_turns"),
        ({"type": "walk"}, "type"),
        ({"type": None}, "type"),
    ],
)
async def test_a_wrong_field_is_400_and_named(one: Served, change: dict[str, JsonValue], field: str) -> None:
    async with one.client() as client:
        answer = await client.post("/run", json={**run_body("http://127.0.0.1:1/v1", "hi"), **change})
    assert refused(answer, 400, "schema_invalid")["at"] == {"field": field}


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_cap_is_413_whether_it_says_so_or_not(one: Served, announced: bool) -> None:
    piece = b"x" * (1 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(18):
            yield piece

    async with one.client() as client:
        answer = await client.post("/run", content=piece * 18 if announced else pieces())
        refused(answer, 413, "payload_too_large")
        assert (await client.get("/health")).status_code == 200


async def test_what_is_no_http_at_all_is_answered_without_a_trace(one: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.server.port)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    said = await reader.read()
    writer.close()
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b" at " not in said


async def test_a_page_in_a_browser_is_not_answered(tmp_path: Path) -> None:
    async with served(tmp_path, token=None) as one, one.client() as client:
        assert (await client.get("/health")).status_code == 200
        for header in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = await client.post("/run", json=run_body("http://127.0.0.1:1/v1", "hi"), headers=header)
            refused(answer, 403, "forbidden")


async def test_a_run_streams_the_lines_of_the_pipe(one: Served, model: OfflineModel) -> None:
    async with (
        one.client() as client,
        client.stream("POST", "/run", json=run_body(model.base_url, "[[say: a b]]")) as answer,
    ):
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [line async for line in lines_of(answer)]
    assert lines[0]["type"] == "ready"
    assert [line["n"] for line in lines[1:]] == list(range(1, len(lines)))
    assert (lines[-1]["type"], lines[-1]["status"]) == ("done", "completed")


async def test_where_it_works_and_under_what_mark_is_the_servers_to_say(one: Served, model: OfflineModel) -> None:
    """A client that could choose them would read any directory, and put any program before the shell."""
    prompt = '[[tool:bash {"command": "pwd; echo $AGENTSTREAM_RUN"}]][[say: done]]'
    own: dict[str, JsonValue] = {"workdir": "/", "mark": "mine", "shell_prefix": ["echo", "taken over"]}
    async with (
        one.client() as client,
        client.stream("POST", "/run", json=run_body(model.base_url, prompt, **own)) as answer,
    ):
        events = [line["event"] async for line in lines_of(answer) if line["type"] == "event"]
    (said,) = [event["content"] for event in events if isinstance(event, dict) and event["type"] == "tool.ended"]
    place, mark = str(said).split()
    assert place.endswith("/run-of-a-client")
    assert mark.endswith("/run-of-a-client")
    assert not Path(place).exists()


async def test_two_runs_of_one_name_do_not_meet(one: Served, model: OfflineModel) -> None:
    async with one.client() as client, client.stream("POST", "/run", json=run_body(model.base_url, HANGS)) as answer:
        await anext(lines_of(answer))
        again = await client.post("/run", json=run_body(model.base_url, HANGS))
        assert refused(again, 409, "schema_invalid")["at"] == {"field": "run"}
        assert (await client.post("/run", json={"type": "cancel", "run": "run-of-a-client"})).status_code == 204
    assert marked("/run-of-a-client") == []


async def test_a_client_that_disconnects_cancels_its_run_and_nothing_of_it_is_left(
    one: Served, model: OfflineModel
) -> None:
    async with one.client() as client, client.stream("POST", "/run", json=run_body(model.base_url, HANGS)) as answer:
        lines = lines_of(answer)
        async for line in lines:
            if line["type"] == "event" and "sleep" in json.dumps(line) and "tool.started" in json.dumps(line):
                break
        await eventually(lambda: len(marked("/run-of-a-client")) >= 2)
        (where,) = {process.cwd() for process in marked("/run-of-a-client")}
    await eventually(lambda: not marked("/run-of-a-client") and not Path(where).exists())
    async with one.client() as client:
        assert (await client.get("/health")).json()["runs"] == 0


async def test_what_is_said_to_a_run_that_is_not_there_harms_nobody(one: Served) -> None:
    async with one.client() as client:
        late: dict[str, JsonValue] = {"run": "nobody", "tool_call_id": "c", "content": "5"}
        refused(await client.post("/run", json={"type": "tool_result", **late}), 404, "no_such_run")
        assert (await client.post("/run", json={"type": "cancel", "run": "nobody"})).status_code == 204
        assert (await client.post("/run", json={"type": "ping", "id": 7})).json() == {"type": "pong", "id": 7}


async def test_no_address_but_loopback_is_listened_on_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(SidecarUnavailable, match="no token"):
        async with SidecarServer(settings(tmp_path), Serving(host="0.0.0.0", port=0)):
            pass
    async with SidecarServer(settings(tmp_path), Serving(host="0.0.0.0", port=0, token=TOKEN)) as server:
        assert {one.laddr[0] for one in psutil.Process(server.pid).net_connections()} == {"0.0.0.0"}


async def test_a_port_that_is_taken_is_said_in_one_line(one: Served, tmp_path: Path) -> None:
    with pytest.raises(SidecarUnavailable, match="EADDRINUSE"):
        async with SidecarServer(settings(tmp_path), Serving(host="127.0.0.1", port=one.server.port)):
            pass
    assert list(tmp_path.iterdir()) == []


async def start_and_stop(one: Served, model: OfflineModel, prompt: str) -> Outcome:
    """What becomes of a run when its server is asked to stop while a tool of it is under way."""
    under_way = asyncio.Event()
    async with http_harness(one) as harness:
        wanted = request(prompt, credentials=credentials(model), tools=("bash",))
        running = asyncio.create_task(
            perform(harness, wanted, lambda event: under_way.set() if isinstance(event, ToolStarted) else None)
        )
        await under_way.wait()
        await one.server.stop()
        return await running


async def test_asked_to_stop_it_lets_runs_end_within_the_grace_period(tmp_path: Path, model: OfflineModel) -> None:
    async with served(tmp_path, grace_s=20) as one:
        outcome = await start_and_stop(one, model, '[[tool:bash {"command": "sleep 1"}]][[say: in time]]')
        assert await one.server.ended() == 0
    assert outcome.text == "in time"


async def test_what_is_not_done_by_then_is_cancelled_and_may_be_tried_elsewhere(
    tmp_path: Path, model: OfflineModel
) -> None:
    async with served(tmp_path, grace_s=0) as one, AsyncExitStack() as stack:
        client = await stack.enter_async_context(one.client())
        outcome = await start_and_stop(one, model, HANGS)
        assert await one.server.ended() == 0
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
        assert marked(one.server.mark) == []
    assert isinstance(outcome.terminal, Failed)
    assert outcome.terminal.code is ErrorCode.HARNESS_UNAVAILABLE
    assert list(tmp_path.iterdir()) == []
