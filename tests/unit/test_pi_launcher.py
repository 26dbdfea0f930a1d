"""Starting, signalling and waiting, and what a request looks like on the pipe."""

import asyncio
import signal
import sys
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.harness.launcher import Command, LocalLauncher, LocalProcess, bubblewrap_prefix
from agentstream.consumers.harness.pi_request import run_line
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.pi_workspace import Place
from agentstream.schemas.trace import TraceContext
from tests.integration.pi_fixtures import KEY, credentials, request


def command(script: str, directory: Path, *, max_line_bytes: int = 1 << 20) -> Command:
    return Command(
        argv=(sys.executable, "-c", script),
        environment={"ONLY": "this"},
        directory=directory,
        max_line_bytes=max_line_bytes,
    )


async def end_of(process: LocalProcess) -> int:
    """Read what is left, and wait; returns its code."""
    await asyncio.gather(process.stdout.read(), process.stderr.read())
    return await process.wait()


async def test_a_process_gets_the_environment_and_directory_it_is_given_and_no_more(tmp_path: Path) -> None:
    script = (
        "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), os.getcwd(), os.getsid(0) == os.getpid())"
    )
    process = await LocalLauncher().start(command(script, tmp_path))
    assert (await process.stdout.readline()).decode() == f"['ONLY'] {tmp_path} True\n"
    assert await end_of(process) == 0


@pytest.mark.both_loops
async def test_a_process_has_no_descriptors_but_its_three_pipes(tmp_path: Path) -> None:
    # What it starts would hold them on: a tool's shell could write what only the sidecar may say.
    script = "import os; print([n for n in os.listdir('/dev/fd') if os.path.exists(f'/dev/fd/{n}')])"
    process = await LocalLauncher().start(command(script, tmp_path))
    assert (await process.stdout.readline()).decode() == "['0', '1', '2']\n"
    assert await end_of(process) == 0


@pytest.mark.both_loops
async def test_what_is_written_waits_until_it_is_read_and_the_end_is_heard(tmp_path: Path) -> None:
    script = "import sys; sys.stdin.buffer.readline(); print(len(sys.stdin.buffer.read()))"
    process = await LocalLauncher().start(command(script, tmp_path))
    process.stdin.write(b"x" * 4_000_000)
    draining = asyncio.create_task(process.stdin.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    process.stdin.write(b"\n" + b"y" * 5)
    await draining
    process.stdin.close()
    assert await process.stdout.readline() == b"5\n"
    assert await end_of(process) == 0


@pytest.mark.both_loops
async def test_a_signal_reaches_the_whole_group_and_a_dead_one_is_no_error(tmp_path: Path) -> None:
    script = "import subprocess, sys; c = subprocess.Popen(['sleep', '300']); print(c.pid, flush=True); c.wait()"
    process = await LocalLauncher().start(command(script, tmp_path))
    child = psutil.Process(int(await process.stdout.readline()))
    process.signal(signal.SIGKILL)
    assert await end_of(process) == -9
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    process.signal(signal.SIGKILL)


@pytest.mark.both_loops
async def test_a_line_up_to_the_limit_is_read_and_a_longer_one_is_an_error(tmp_path: Path) -> None:
    process = await LocalLauncher().start(
        command("print('x' * 999_999); print('x' * 2_000_000)", tmp_path, max_line_bytes=1_000_000)
    )
    assert len(await process.stdout.readline()) == 1_000_000
    with pytest.raises(ValueError, match="limit"):
        await process.stdout.readline()
    process.signal(signal.SIGKILL)
    assert await end_of(process) in (-9, 0)


async def test_a_program_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    nothing = Command(argv=("/nowhere",), environment={}, directory=tmp_path, max_line_bytes=1)
    with pytest.raises(OSError, match="nowhere"):
        await LocalLauncher().start(nothing)
    assert "ONLY" not in repr(command("", tmp_path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bubblewrap is for Linux")
def test_bubblewrap_gives_up_root_and_binds_the_directory_alone() -> None:
    prefix = bubblewrap_prefix(Path("/tmp/w"), program=Path("/usr/bin/bwrap"), as_root=True)
    joined = " ".join(prefix)
    assert joined.startswith("/usr/bin/bwrap --unshare-pid --die-with-parent --unshare-user --uid 65534")
    assert joined.endswith("--bind /tmp/w /tmp/w --chdir /tmp/w --")
    assert "--cap-drop" not in bubblewrap_prefix(Path("/w"), program=Path("bwrap"), as_root=False)


async def _answer(_: object) -> str:
    await asyncio.sleep(0)
    return "x"


def test_a_request_becomes_a_line_with_the_tools_that_it_allows() -> None:
    tools = tuple(PythonTool(name=n, description=n, parameters={}, call=_answer) for n in ("mine", "other"))
    trace = TraceContext(trace_id="a" * 32, span_id="b" * 16)
    wanted = request("hi", credentials=credentials("http://x"), model="a/b/c", tools=("bash", "mine"), trace=trace)
    place = Place(directory=Path("/tmp/place"), mark="1.2.x/a")
    line = run_line(wanted, place, tools=tools, window=None, shell_prefix=("box", "{workdir}"))
    assert (line.model.provider, line.model.id) == ("a", "b/c")
    assert (line.tools, [tool.name for tool in line.python_tools]) == (("bash",), ["mine"])
    assert (line.mark, line.workdir, line.shell_prefix) == ("1.2.x/a", "/tmp/place", ("box", "/tmp/place"))
    assert line.traceparent == trace.traceparent
    assert line.endpoint.api_key == KEY
    assert KEY not in repr(line)
    assert (
        run_line(request("hi", credentials=None), place, tools=(), window=1, shell_prefix=()).endpoint.api_key is None
    )
