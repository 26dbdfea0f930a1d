"""The `pi-http` harness: runs that lose their sidecar, runs apart, tools that Python answers."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydantic import JsonValue

from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.port import HarnessRequest, ToolAnswer
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.consumers.harness.sidecar_server import Serving, SidecarServer
from agentstream.infra.offline_model import OfflineModel
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import ToolEnded, ToolStarted
from tests.integration.pi_fixtures import KEY, Outcome, credentials, eventually, marked, perform, request, settings
from tests.integration.pi_http_fixtures import TOKEN, http_harness, served

SLEEPS = '[[tool:bash {"command": "sleep 600"}]][[say: done]]'


def kill_node(pid: int) -> None:
    psutil.Process(pid).send_signal(signal.SIGKILL)


def asking(model: OfflineModel, prompt: str, *, apart: bool = False) -> HarnessRequest:
    return replace(request(prompt, credentials=credentials(model), tools=("bash",)), apart=apart)


async def until_a_tool_runs(harness: PiHttpHarness, wanted: HarnessRequest) -> asyncio.Task[Outcome]:
    """The run, at its first tool."""
    under_way = asyncio.Event()
    task = asyncio.create_task(
        perform(harness, wanted, lambda event: under_way.set() if isinstance(event, ToolStarted) else None)
    )
    await under_way.wait()
    return task


async def test_a_sidecar_that_is_killed_takes_its_runs_along_and_is_nobodys_fault(tmp_path: Path) -> None:
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        runs = [await until_a_tool_runs(harness, asking(model, SLEEPS)) for _ in range(2)]
        kill_node(one.server.pid)
        for outcome in await asyncio.gather(*runs):
            assert outcome.failed.code is ErrorCode.HARNESS_CRASHED
            assert outcome.failed.lost_with_others
        assert "does not answer" in str(await harness.health()) or "no Pi sidecar" in str(await harness.health())
        assert await one.server.ended() == -signal.SIGKILL
    assert marked(one.server.mark) == []


async def test_a_run_apart_has_a_process_of_its_own_and_dies_alone(tmp_path: Path) -> None:
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        shared = await until_a_tool_runs(harness, asking(model, SLEEPS))
        apart = await until_a_tool_runs(harness, asking(model, SLEEPS, apart=True))
        (own,) = [
            child for child in psutil.Process(one.server.pid).children() if "main.js" in " ".join(child.cmdline())
        ]
        own.kill()
        outcome = await apart
        assert outcome.failed.code is ErrorCode.HARNESS_CRASHED
        assert not outcome.failed.lost_with_others
        assert "SIGKILL" in outcome.failed.detail
        assert not shared.done()
        answered = await perform(harness, asking(model, "[[say: alive and apart]]", apart=True))
        assert answered.text == "alive and apart"
        shared.cancel()
        await asyncio.wait([shared])
        assert [process for process in marked(one.server.mark) if process.pid != one.server.pid] == []


async def test_a_run_that_waits_for_a_process_of_its_own_says_so(tmp_path: Path) -> None:
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        four = [await until_a_tool_runs(harness, asking(model, SLEEPS, apart=True)) for _ in range(4)]
        fifth = harness.run(asking(model, "[[say: my turn]]", apart=True))
        heard = [type(await anext(fifth)).__name__ for _ in range(2)]
        assert heard == ["Waiting", "Waiting"]
        four[0].cancel()
        while not isinstance(event := await anext(fifth), ToolEnded) and "Ended" not in type(event).__name__:
            pass  # until it says anything of its own: room was made
        waiting = asyncio.create_task(perform(harness, asking(model, "[[say: never]]", apart=True)))
        waiting.cancel()
        await asyncio.wait([waiting, four[0]], timeout=2)
        assert waiting.cancelled()
        for task in four[1:]:
            task.cancel()
        await asyncio.wait(four)


async def test_a_cancelled_run_in_a_process_of_its_own_leaves_nothing(tmp_path: Path) -> None:
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        run = await until_a_tool_runs(harness, asking(model, SLEEPS, apart=True))
        run.cancel()
        await asyncio.wait([run], timeout=2)
        assert run.cancelled()
        assert [process for process in marked(one.server.mark) if process.pid != one.server.pid] == []


async def test_tools_of_pythons_are_answered_by_the_worker(tmp_path: Path) -> None:
    async def count(arguments: JsonValue) -> str:
        return f"counted {json.dumps(arguments)}"

    tool = PythonTool(name="count", description="Counts", parameters={"type": "object"}, call=count)
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one, tools=(tool,)) as harness:
        for apart in (False, True):
            wanted = request(
                '[[tool:count {"word": "a"}]][[say: done]]', credentials=credentials(model), tools=("count",)
            )
            outcome = await perform(harness, replace(wanted, apart=apart))
            (ended,) = [event for event in outcome.events if isinstance(event, ToolEnded)]
            assert ended.content == 'counted {"word": "a"}'
            assert outcome.text == "done"


async def test_a_replay_answers_in_the_place_of_pis_tools(tmp_path: Path) -> None:
    async def recorded(_name: str, _arguments: JsonValue) -> ToolAnswer:
        return ToolAnswer(content="as recorded")

    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        wanted = asking(model, '[[tool:bash {"command": "echo real"}]][[say: done]]')
        outcome = await perform(harness, replace(wanted, answer_tool=recorded))
    (ended,) = [event for event in outcome.events if isinstance(event, ToolEnded)]
    assert ended.content == "as recorded"


async def test_a_sidecar_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    async with OfflineModel() as model, served(tmp_path) as first:
        place = replace(first.place, restart_s=60.0)
        async with PiHttpHarness(place) as harness:
            # It leaves an open connection behind, which the next run must not trip over.
            assert (await perform(harness, asking(model, "[[say: before]]"))).text == "before"
            kill_node(first.server.pid)
            await first.server.ended()
            run = asyncio.create_task(perform(harness, asking(model, "[[say: back again]]")))
            async with served_at(tmp_path, first.server.port):
                assert (await run).text == "back again"


@asynccontextmanager
async def served_at(tmp_path: Path, port: int) -> AsyncIterator[None]:
    async with SidecarServer(settings(tmp_path), Serving(host="127.0.0.1", port=port, token=TOKEN)):
        yield


async def test_who_is_not_let_in_or_finds_nobody_is_told_what_to_do(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        for token in ("wrong", None):
            with pytest.raises(SidecarUnavailable, match="AGENTSTREAM_PI_HTTP_TOKEN must be the same"):
                async with PiHttpHarness(HttpPlace(url=one.url, token=token)):
                    pass
        url = one.url
        await one.server.stop()
    with pytest.raises(SidecarUnavailable, match="is `agentstream sidecar` running there"):
        async with PiHttpHarness(HttpPlace(url=url, restart_s=0.1)):
            pass


async def test_no_secret_is_in_what_is_printed(tmp_path: Path) -> None:
    assert TOKEN not in repr(HttpPlace(url="http://x", token=TOKEN))
    async with OfflineModel() as model, served(tmp_path) as one, http_harness(one) as harness:
        outcome = await perform(harness, asking(model, "[[fail:401]]"))
        assert outcome.failed.code is ErrorCode.PROVIDER_AUTH
        assert KEY not in outcome.failed.detail
        await eventually(lambda: not [process for process in marked(one.server.mark) if process.pid != one.server.pid])
