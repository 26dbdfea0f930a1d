"""What is left of a run, and of a worker, whatever way it ends: nothing."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.port import Failed, Finished
from agentstream.consumers.harness.sidecar import Patience
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.toolchain import ensure_pi_sidecar, find_node
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import PartDelta, ToolEnded, ToolProgressed, ToolStarted
from tests.integration.pi_fixtures import (
    KEY,
    credentials,
    eventually,
    marked,
    perform,
    pi_harness,
    request,
    settings,
)

LEAVES_A_DAEMON = '[[tool:bash {"command": "setsid sleep 300 >/dev/null 2>&1 & sleep 0.1; echo started"}]]'
STAYS_IN_A_TOOL = '[[tool:bash {"command": "setsid sleep 300 >/dev/null 2>&1 & echo started; sleep 300"}]]'


@pytest.fixture
async def model() -> AsyncIterator[OfflineModel]:
    async with OfflineModel() as opened:
        yield opened


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[PiHarness]:
    async with pi_harness(settings(tmp_path)) as opened:
        yield opened


def runs_of(harness: PiHarness) -> list[psutil.Process]:
    """Living processes of the harness's runs; those of its own carry a mark without a slash."""
    return marked(f"{harness.mark}/")


async def in_a_tool(harness: PiHarness, model: OfflineModel, task_of: asyncio.TaskGroup) -> asyncio.Task[object]:
    """Start a run and come back once its shell and its daemon live."""
    wanted = request(STAYS_IN_A_TOOL, credentials=credentials(model), tools=("bash",))
    task = task_of.create_task(perform(harness, wanted))
    await eventually(lambda: len([p for p in runs_of(harness) if p.name() == "sleep"]) >= 2)
    return task


async def test_a_daemon_is_gone_when_its_run_has_succeeded(harness: PiHarness, model: OfflineModel) -> None:
    seen = 0
    wanted = request(f"{LEAVES_A_DAEMON}[[say: ok]]", credentials=credentials(model), tools=("bash",))
    async for event in harness.run(wanted):
        if isinstance(event, PartDelta):
            seen = len(runs_of(harness))
        if isinstance(event, Finished | Failed):
            assert isinstance(event, Finished)
            assert runs_of(harness) == []
    assert seen == 1


async def test_a_daemon_is_gone_when_its_run_has_failed(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[loop:bash {"command": "setsid sleep 300 >/dev/null 2>&1 &"}]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",), max_turns=2))
    assert outcome.failed.code is ErrorCode.MAX_TURNS
    assert runs_of(harness) == []


async def test_a_daemon_without_our_mark_is_found_by_its_directory(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[tool:bash {"command": "env -i setsid sleep 300 >/dev/null 2>&1 & echo $!"}]][[say: ok]]'
    wanted = request(script, credentials=credentials(model), tools=("bash",))
    events = harness.run(wanted)
    daemons = [psutil.Process(int(str(event.content))) async for event in events if isinstance(event, ToolEnded)]
    assert len(daemons) == 1
    # Whether the machine's init has reaped it is none of our business.
    assert not daemons[0].is_running() or daemons[0].status() == psutil.STATUS_ZOMBIE


@pytest.mark.both_loops
async def test_a_cancelled_run_ends_within_two_seconds_and_leaves_nothing(
    harness: PiHarness, model: OfflineModel, tmp_path: Path
) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            task = await in_a_tool(harness, model, group)
            began = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            took = time.monotonic() - began
    assert task.cancelled()
    assert took < 2
    assert runs_of(harness) == []
    assert [path.name for path in tmp_path.glob("*/*") if path.name not in ("home", "tmp")] == []
    assert (await perform(harness, request("[[say: ok]]", credentials=credentials(model)))).text == "ok"


async def test_a_run_closed_in_mid_answer_stops_its_model_call(harness: PiHarness, model: OfflineModel) -> None:
    iterator = harness.run(request("[[pace: 50]]count to 500", credentials=credentials(model)))
    async for event in iterator:
        if isinstance(event, PartDelta):
            break
    await iterator.aclose()  # type: ignore[attr-defined]  # the port promises an iterator, ours is a generator
    await eventually(lambda: model.cut_calls == 1)


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_a_model_that_hangs_is_left_at_once_when_the_watchdog_cancels(
    harness: PiHarness, model: OfflineModel, fault: str
) -> None:
    # Pi itself never notices: the watchdog is ours, above the port, and all it can do is cancel.
    wanted = request(f"[[fail:{fault}]][[say: one two three four]]", credentials=credentials(model))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await perform(harness, wanted)
    assert (await perform(harness, request("[[say: ok]]", credentials=credentials(model)))).text == "ok"


@pytest.mark.both_loops
async def test_a_killed_sidecar_fails_its_runs_and_takes_their_daemons_along(
    harness: PiHarness, model: OfflineModel
) -> None:
    first = harness.sidecar_pid
    async with asyncio.TaskGroup() as group:
        one = await in_a_tool(harness, model, group)
        other = group.create_task(perform(harness, request("[[pace: 50]]count to 500", credentials=credentials(model))))
        await eventually(lambda: len(model.calls) == 2)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        outcomes = [await one, await other]
    assert runs_of(harness) == []
    for outcome in outcomes:
        failed = outcome.failed  # type: ignore[attr-defined]
        assert (failed.code, failed.lost_with_others) == (ErrorCode.HARNESS_CRASHED, True)
        assert "signal 9" in failed.detail
    # A retry comes at once and must find a new sidecar, or wait for it.
    assert (await perform(harness, request("[[say: ok]]", credentials=credentials(model)))).text == "ok"
    assert harness.sidecar_pid not in (None, first)


async def test_a_run_that_dies_alone_with_its_sidecar_is_known_to_have_been_alone(
    harness: PiHarness, model: OfflineModel
) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(perform(harness, request("[[fail:hang]]", credentials=credentials(model))))
        await eventually(lambda: len(model.calls) == 1)
        os.kill(harness.sidecar_pid or 0, signal.SIGKILL)
    assert not task.result().failed.lost_with_others


async def test_a_run_apart_has_a_process_of_its_own_and_leaves_none(harness: PiHarness, model: OfflineModel) -> None:
    """A run whose process died may be the one that killed it: it must not take others along again."""
    suspect = replace(request("[[fail:hang]]", credentials=credentials(model)), apart=True)
    async with asyncio.TaskGroup() as group:
        apart = group.create_task(perform(harness, suspect))
        await eventually(lambda: len(model.calls) == 1)
        beside = group.create_task(perform(harness, request("[[pace: 5]]count to 20", credentials=credentials(model))))
        await eventually(lambda: len(model.calls) == 2)
        nodes = [process.pid for process in marked(harness.mark) if process.pid != harness.sidecar_pid]
        assert len(nodes) == 1
        os.kill(nodes[0], signal.SIGKILL)
    assert (apart.result().failed.code, apart.result().failed.lost_with_others) == (ErrorCode.HARNESS_CRASHED, False)
    assert beside.result().text.startswith("1 2 3")
    await eventually(lambda: [process.pid for process in marked(harness.mark)] == [harness.sidecar_pid])


@pytest.mark.both_loops
async def test_a_blocked_sidecar_is_killed_and_started_again(tmp_path: Path, model: OfflineModel) -> None:
    quick = Patience(ping_interval=0.1, ping=0.5)
    async with pi_harness(settings(tmp_path, patience=quick)) as harness:
        first = harness.sidecar_pid
        async with asyncio.TaskGroup() as group:
            task = group.create_task(perform(harness, request("[[fail:hang]]", credentials=credentials(model))))
            await eventually(lambda: len(model.calls) == 1)
            os.kill(first or 0, signal.SIGSTOP)
        assert task.result().failed.code is ErrorCode.HARNESS_CRASHED
        assert (await perform(harness, request("[[say: ok]]", credentials=credentials(model)))).text == "ok"
        assert harness.sidecar_pid != first
        assert await harness.health() is None


async def test_a_worker_that_is_closed_leaves_no_process_and_no_directory(tmp_path: Path, model: OfflineModel) -> None:
    async with pi_harness(settings(tmp_path)) as harness:
        await perform(
            harness, request(f"{LEAVES_A_DAEMON}[[say: ok]]", credentials=credentials(model), tools=("bash",))
        )
    assert marked(f"{os.getpid()}.") == []
    assert list(tmp_path.iterdir()) == []


WORKER = """
    import asyncio, sys
    from pathlib import Path
    from tests.integration.pi_fixtures import credentials, perform, pi_harness, request, settings
    from agentstream.infra.offline_model import OfflineModel
    SCRIPT = sys.argv[2]

    async def main():
        async with OfflineModel() as model, pi_harness(settings(Path(sys.argv[1]))) as harness:
            print(harness.sidecar_pid, flush=True)
            await perform(harness, request(SCRIPT, credentials=credentials(model), tools=("bash",)))

    asyncio.run(main())
"""


def sleepers(worker: subprocess.Popen[bytes]) -> int:
    """How many of the worker's shell children live: its script starts two."""
    return len([process for process in marked(f"{worker.pid}.") if process.name() == "sleep"])


def start_worker(temporary: Path) -> subprocess.Popen[bytes]:
    script = textwrap.dedent(WORKER)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(temporary), STAYS_IN_A_TOOL],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_killed_worker_leaves_no_process_and_no_directory(tmp_path: Path, number: signal.Signals) -> None:
    worker = start_worker(tmp_path)
    mine = f"{worker.pid}."
    try:
        await eventually(lambda: sleepers(worker) == 2, within=30)
        # The whole group, as a terminal or a supervisor does it: the watcher is not in it.
        os.killpg(worker.pid, number)
        await eventually(lambda: marked(mine) == [])
        await eventually(lambda: list(tmp_path.iterdir()) == [])
    finally:
        worker.kill()
        worker.wait()


async def test_the_next_worker_sweeps_what_a_dead_one_left_and_spares_the_living(tmp_path: Path) -> None:
    dead, alive = start_worker(tmp_path), start_worker(tmp_path)
    try:
        await eventually(lambda: sleepers(dead) == sleepers(alive) == 2, within=30)
        # The worst case: worker and watcher die together, nobody is left to clean up.
        for process in psutil.Process(dead.pid).children():
            process.kill()
        dead.kill()
        dead.wait()
        assert sleepers(dead) >= 1
        async with pi_harness(settings(tmp_path)):
            assert marked(f"{dead.pid}.") == []
            assert sleepers(alive) == 2
            assert not list(tmp_path.glob(f"*{dead.pid}.*"))
            assert list(tmp_path.glob(f"*{alive.pid}.*"))
    finally:
        for worker in (dead, alive):
            worker.kill()
            worker.wait()
    await eventually(lambda: marked(f"{alive.pid}.") == [])


async def test_a_directory_that_an_agent_locked_is_removed_all_the_same(
    harness: PiHarness, model: OfflineModel, tmp_path: Path
) -> None:
    command = "mkdir -p a/b && touch a/b/c && chmod 000 a/b a && ln -s / root"
    script = f'[[tool:bash {{"command": "{command}"}}]][[say: ok]]'
    assert (await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))).text == "ok"
    assert [path.name for path in tmp_path.glob("*/*") if path.name not in ("home", "tmp")] == []
    assert Path("/etc").is_dir()


async def test_the_secret_is_in_no_argv_and_no_environment(harness: PiHarness, model: OfflineModel) -> None:
    checked = 0
    wanted = request(
        '[[tool:bash {"command": "sleep 0.5; echo ok"}]][[say: ok]]', credentials=credentials(model), tools=("bash",)
    )
    async for event in harness.run(wanted):
        if isinstance(event, ToolStarted | ToolProgressed):
            for process in marked(f"{os.getpid()}."):
                with contextlib.suppress(psutil.NoSuchProcess):
                    checked += 1
                    assert KEY not in " ".join([*process.cmdline(), *process.environ().values()])
    assert checked >= 2


async def test_a_sidecar_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SidecarUnavailable, match="cannot be started"):
        async with pi_harness(settings(tmp_path, node=Path("/nowhere/node"))):
            pass
    with pytest.raises(SidecarUnavailable, match="Cannot find module"):
        async with pi_harness(settings(tmp_path, sidecar=tmp_path / "missing.js")):
            pass
    assert marked(f"{os.getpid()}.") == []
    assert list(tmp_path.iterdir()) == []


async def test_the_real_sidecar_ends_cleanly_at_the_end_of_its_input() -> None:
    node = str(find_node().node)
    main = str(ensure_pi_sidecar() / "src" / "main.js")
    process = await asyncio.create_subprocess_exec(
        node, main, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert b'"ready"' in await process.stdout.readline()
    for bad in (b"not json", b"[]", b'{"type":"run"}', b'{"type":"nonsense"}', b'{"type":"ping","id":-1}', b"\xff\xfe"):
        process.stdin.write(bad + b"\n")
        assert b'"error"' in await process.stdout.readline()
    process.stdin.write(b'{"type":"cancel","run":"gone"}\n{"type":"ack","run":"gone","n":1}\n')
    process.stdin.write(b"x" * (17 * 1024 * 1024) + b"\n")
    assert b"longer than" in await process.stdout.readline()
    process.stdin.write(b'{"type":"ping","id":7}\n')
    assert await process.stdout.readline() == b'{"type":"pong","id":7}\n'
    process.stdin.close()
    assert await process.wait() == 0
