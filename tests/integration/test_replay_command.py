"""`agentstream replay` as a process: killed, interrupted, gone on with, and what it says."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentstream.consumers.replay.playing import read_replay
from agentstream.schemas.recordings import ReplayedRun
from tests.support.replays import Case, record_scripted, scripted, write
from tests.support.waiting import eventually

RUNS = 12
ENOUGH = 3


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where the command is typed."""

    home: Path

    @property
    def results(self) -> Path:
        return self.home / "out" / "results.jsonl"

    def finished(self) -> list[ReplayedRun]:
        return list(read_replay(self.home / "out")[1])

    @asynccontextmanager
    async def replay(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command under way; it is killed at the end if it still is."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", "replay", "recording", "--out", "out", *options),
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "AGENTSTREAM_HARNESSES": "scripted"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def said(self, *options: str, code: int = 0) -> tuple[str, str]:
        """What it says until its end."""
        async with self.replay(*options) as process:
            out, err = await process.communicate()
            assert process.returncode == code, err.decode()
            return out.decode(), err.decode()

    async def until_some_are_finished(self) -> None:
        def some() -> bool:
            return self.results.exists() and self.results.read_bytes().count(b"\n") >= ENOUGH

        await eventually(some, "some runs are finished")


@pytest.fixture
async def terminal(tmp_path: Path) -> Terminal:
    cases = (Case(session=f"s{n % 4}", turn=n // 4, parameters=scripted("a b c", delay_ms=60)) for n in range(RUNS))
    write(tmp_path / "recording", await record_scripted(*cases))
    return Terminal(home=tmp_path)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
async def test_what_was_finished_before_the_end_came_is_not_played_again(terminal: Terminal, sent: int) -> None:
    async with terminal.replay("--mode", "frozen", "--concurrency", "1") as process:
        await terminal.until_some_are_finished()
        process.send_signal(sent)
        await process.communicate()
        assert process.returncode == (-9 if sent == signal.SIGKILL else 130)
    before = terminal.finished()
    assert ENOUGH <= len(before) < RUNS
    out, _ = await terminal.said("--mode", "frozen", "--json")
    after = terminal.finished()
    assert after[: len(before)] == before
    assert sorted(run.run_id for run in after) == sorted(f"r{number}" for number in range(RUNS))
    summary = json.loads(out)
    assert (summary["finished"], summary["diverged"], summary["complete"]) == (RUNS, 0, True)


async def test_a_bound_that_is_reached_ends_with_2_and_a_word_about_it(terminal: Terminal) -> None:
    out, err = await terminal.said("--mode", "frozen", "--max-runs", "4", code=2)
    assert "4 runs: 4 completed, 0 diverged" in out
    assert "not complete: stopped at 4 runs" in err
    assert len(terminal.finished()) == 4


async def test_the_first_divergence_is_shown(terminal: Terminal) -> None:
    changed = ("--harness", "scripted", "--set", 'harness.options.text="x"', "--set", "harness.options.delay_ms=0")
    out, _ = await terminal.said("--mode", "frozen", *changed)
    assert "12 runs: 0 completed, 12 diverged" in out
    assert "after 0 steps: another text" in out


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--mode", "thawed"), "mode: Input should be 'live', 'frozen' or 'hybrid'"),
        (("--on-miss", "error"), "on_miss error is for hybrid replays, this one is live"),
        (("--mode", "hybrid", "--on-miss", "real"), "on_miss real and the names of real tools go together"),
        (("--via", "pigeon"), "there are process and kafka"),
        (("--set", "modle=a/b"), "did you mean model?"),
    ],
)
async def test_what_cannot_be_asked_for_is_said(terminal: Terminal, options: tuple[str, ...], what: str) -> None:
    _, err = await terminal.said(*options, code=2)
    assert what in err
    assert not (terminal.home / "out").exists()


async def test_a_tool_that_the_settings_do_not_allow_cannot_be_made_to_run(terminal: Terminal) -> None:
    _, err = await terminal.said("--mode", "hybrid", "--on-miss", "real", "--real-tools", "bash", code=2)
    assert "AGENTSTREAM_TOOLS: does not allow bash" in err


async def test_other_terms_are_refused_and_a_damaged_recording_too(terminal: Terminal) -> None:
    await terminal.said("--mode", "frozen")
    _, err = await terminal.said("--mode", "live", code=2)
    assert "was begun with other terms (mode)" in err
    part = terminal.home / "recording" / "runs-00001.jsonl"
    part.write_bytes(part.read_bytes().replace(b"a b c", b"a b d"))
    _, err = await terminal.said("--mode", "frozen", code=2)
    assert "was changed since it was recorded" in err
