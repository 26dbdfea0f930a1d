"""Recordings made by really running something in this process, and replays of them."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.agent_config import WorkerAgentConfig, admit
from agentstream.consumers.effective import EffectiveParameters
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.playing import (
    Budget,
    InProcess,
    Performer,
    Playbacks,
    Player,
    ReplayDirectory,
    ReplayHarness,
    ReplayManifest,
    ReplayTerms,
    Tally,
)
from agentstream.consumers.replay.playing.performers import config_of
from agentstream.consumers.replay.recording.files import RecordingWriter
from agentstream.consumers.runs import Runs
from agentstream.consumers.tracing.process import ProcessSpan
from agentstream.schemas.events import ReadEvent
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun, ReplayedRun
from agentstream.schemas.records import Position
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run to be recorded."""

    text: str = "hi"
    session: str = "session"
    turn: int = 0
    parameters: Mapping[str, object] | None = None
    history: Sequence[Message] = ()


def scripted(text: str = "one two", *tools: Mapping[str, JsonValue], **options: JsonValue) -> dict[str, object]:
    """Parameters of a scripted run."""
    played: dict[str, JsonValue] = {"text": text, "tools": [dict(tool) for tool in tools], **options}
    return {"harness": {"kind": "scripted", "options": played}, "tools": [str(tool["name"]) for tool in tools]}


async def record(config: WorkerAgentConfig, cases: Iterable[Case]) -> list[RecordedRun]:
    """Run them one after the other, as `r0`, `r1`, …, and note what happened."""
    runs = Runs(config.harnesses, redactor=Redactor())
    recorded = []
    for number, case in enumerate(cases):
        request = InvokeRequest(
            id=f"r{number}",
            session_id=case.session,
            messages=(*case.history, Message.of_text("user", case.text)),
            parameters=AgentParameters.model_validate(case.parameters or {}),
        )
        parameters = admit(request, config)
        assert isinstance(parameters, EffectiveParameters), parameters
        admitted = Admitted(
            request=request,
            position=Position(topic="t", partition=0, offset=number),
            timestamp_ms=0,
            process=ProcessSpan.none(TraceContext.fresh()),
            claim=1,
            parameters=parameters,
        )
        events: list[ReadEvent] = []
        result: InvokeResult | None = None
        async with aclosing(runs.execute(admitted)) as produced:
            async for item in produced:
                if isinstance(item, InvokeResult):
                    result = item
                else:
                    events += item.events
        assert result is not None
        recorded.append(
            RecordedRun(
                run_id=f"r{number}",
                session_id=case.session,
                turn=case.turn,
                request=request,
                result=result,
                events=tuple(events),
            )
        )
    return recorded


async def record_scripted(*cases: Case) -> list[RecordedRun]:
    """The same with the scripted harness and any tool they name."""
    async with ScriptedHarness() as harness:
        names = {name for case in cases for name in AgentParameters.model_validate(case.parameters or {}).tools or ()}
        return await record(WorkerAgentConfig(harnesses={"scripted": harness}, tools=frozenset(names)), cases)


def write(directory: Path, runs: Iterable[RecordedRun]) -> Path:
    """A recording on disk."""
    with RecordingWriter.open(directory) as writer:
        for run in runs:
            writer.append(run)
        writer.finish(origin="import")
    return directory


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What came of a replay."""

    tally: Tally
    runs: dict[tuple[str, int], ReplayedRun]
    order: tuple[str, ...]

    def __getitem__(self, run_id: str) -> ReplayedRun:
        return self.runs[run_id, 0]


def manifest(runs: int, terms: ReplayTerms) -> ReplayManifest:
    return ReplayManifest(
        id="t1", created_at=datetime.now(UTC), recording="r", recording_hash="0", runs=runs, terms=terms
    )


@asynccontextmanager
async def scripted_performer(terms: ReplayTerms, tools: Iterable[str]) -> AsyncIterator[tuple[Performer, Playbacks]]:
    """Plays scripted runs in this process."""
    playbacks = Playbacks()
    async with ScriptedHarness() as harness:
        harnesses: dict[str, Harness] = {"scripted": ReplayHarness(harness, playbacks, plays_unknown=True)}
        allowed = frozenset(tools)
        config = config_of(WorkerAgentConfig(harnesses=harnesses, tools=allowed), terms.mode, allowed)
        yield InProcess(Runs(harnesses, redactor=Redactor()), config), playbacks


async def replay(
    directory: Path, runs: Sequence[RecordedRun], terms: ReplayTerms | None = None, budget: Budget | None = None
) -> Replayed:
    """Play scripted runs into this directory, or go on there."""
    terms = terms or ReplayTerms(mode="frozen")
    tools = {name for run in runs for name in run.request.parameters.tools or ()}
    with ReplayDirectory.open(directory, manifest(len(runs), terms)) as opened:
        async with scripted_performer(terms, tools | set(terms.changes.tools or ())) as (performer, playbacks):
            tally = await Player(opened, performer, playbacks, budget=budget).play(runs)
        return replayed(opened, tally)


def replayed(directory: ReplayDirectory, tally: Tally) -> Replayed:
    found = list(directory.results())
    return Replayed(
        tally=tally, runs={(one.run_id, one.repeat): one for one in found}, order=tuple(one.run_id for one in found)
    )
