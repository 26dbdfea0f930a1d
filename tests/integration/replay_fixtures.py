"""One Pi and one model, to record with and to replay with."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.playing import (
    Budget,
    InProcess,
    Playbacks,
    Player,
    ReplayDirectory,
    ReplayHarness,
    ReplayTerms,
    read_replay,
)
from agentstream.consumers.replay.playing.performers import config_of
from agentstream.consumers.runs import Runs
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.playback import PlaybackEndpoint
from agentstream.schemas.recordings import RecordedRun, ReplayedRun
from tests.integration.pi_fixtures import ALL_TOOLS, credentials, settings
from tests.support import commands as typed
from tests.support.replays import Case, Replayed, manifest, record, record_scripted, replayed, scripted, write
from tests.support.waiting import eventually

RUNS = 12
ENOUGH = 3
USAGE = "[[usage: prompt=1000 cached=200 completion=7]]"


@dataclass(frozen=True, kw_only=True)
class PiStage:
    """One Pi and one model, to record with and to replay with."""

    pi: PiHarness
    model: OfflineModel
    directory: Path

    @property
    def config(self) -> WorkerAgentConfig:
        return WorkerAgentConfig(
            harnesses={"pi": self.pi},
            default_model="offline/demo",
            tools=frozenset(ALL_TOOLS),
            credentials={"offline": credentials(self.model)},
        )

    async def record(self, *cases: Case) -> list[RecordedRun]:
        return await record(self.config, cases)

    async def replay(
        self, runs: Sequence[RecordedRun], terms: ReplayTerms, *, pi: Any = None, out: str = "out"
    ) -> Replayed:
        async with AsyncExitStack() as stack:
            playbacks = Playbacks()
            endpoint = await stack.enter_async_context(PlaybackEndpoint(playbacks))
            harnesses = {"pi": ReplayHarness(pi or self.pi, playbacks, endpoint=endpoint.base_url)}
            config = WorkerAgentConfig(
                harnesses=harnesses, default_model="offline/demo", credentials={"offline": credentials(self.model)}
            )
            performer = InProcess(
                Runs(harnesses, redactor=Redactor()), config_of(config, terms.mode, frozenset(ALL_TOOLS))
            )
            opened = stack.enter_context(ReplayDirectory.open(self.directory / out, manifest(len(runs), terms)))
            return replayed(opened, await Player(opened, performer, playbacks, budget=Budget(concurrency=8)).play(runs))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[PiStage]:
    """One Pi and one model, in the test's own directory."""
    async with OfflineModel() as model, PiHarness(settings(tmp_path), redactor=Redactor()) as pi:
        yield PiStage(pi=pi, model=model, directory=tmp_path)


def with_tools(number: int) -> Case:
    """Two turns of tools, the second with two calls side by side, and an answer."""
    first = json.dumps({"command": f"echo {number} | tee kept; echo ü"})
    second, third = json.dumps({"path": "kept"}), json.dumps({"path": "nowhere"})
    text = (
        f"{USAGE}[[think: hm]][[tool:bash {first}]][[tool:read {second}]][[and:read {third}]][[say: It is {number}.]]"
    )
    return Case(text=text, session=f"s{number}", parameters={"tools": ["bash", "read"], "agents_md": "Be exact."})


class Terminal(typed.Terminal):
    """Where replays are begun."""

    @property
    def results(self) -> Path:
        return self.home / "out" / "results.jsonl"

    def finished(self) -> list[ReplayedRun]:
        return list(read_replay(self.home / "out")[1])

    @asynccontextmanager
    async def replay(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command under way; it is killed at the end if it still is."""
        async with self.command("replay", "recording", "--out", "out", *options) as process:
            yield process

    async def said(self, *options: str, code: int = 0) -> tuple[str, str]:
        """What it says until its end."""
        said = await self.type("replay", "recording", "--out", "out", *options, code=code)
        return said.out, said.err

    async def until_some_are_finished(self) -> None:
        def some() -> bool:
            return self.results.exists() and self.results.read_bytes().count(b"\n") >= ENOUGH

        await eventually(some, "some runs are finished")


async def recorded_at(home: Path, environment: Mapping[str, str] | None = None) -> Terminal:
    """A terminal with a recording of twelve runs in four sessions, each of them a tenth of a second."""
    cases = (Case(session=f"s{n % 4}", turn=n // 4, parameters=scripted("a b c", delay_ms=60)) for n in range(RUNS))
    write(home / "recording", await record_scripted(*cases))
    return Terminal(home=home, environment=environment or {})


async def ended_and_gone_on_with(terminal: Terminal, sent: signal.Signals, *options: str) -> None:
    """Send the signal in the middle, and play the rest."""
    async with terminal.replay("--mode", "frozen", "--concurrency", "1", *options) as process:
        await terminal.until_some_are_finished()
        process.send_signal(sent)
        await process.communicate()
        assert process.returncode == (-9 if sent is signal.SIGKILL else 130)
    before = terminal.finished()
    assert ENOUGH <= len(before) < RUNS
    out, _ = await terminal.said("--mode", "frozen", "--json", *options)
    after = terminal.finished()
    assert after[: len(before)] == before
    assert sorted(run.run_id for run in after) == sorted(f"r{number}" for number in range(RUNS))
    summary = json.loads(out)
    assert (summary["finished"], summary["diverged"], summary["complete"]) == (RUNS, 0, True)
