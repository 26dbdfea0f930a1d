"""Plays runs of the scripted harness (and of broken ones) in virtual time."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from pydantic import JsonValue

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.effective import EffectiveParameters
from agentstream.consumers.harness.port import (
    Credentials,
    Harness,
    HarnessEvent,
    HarnessRequest,
    RunLimits,
    Terminal,
    Waiting,
)
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.interrupt import Interrupt
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.runs import Runs
from agentstream.consumers.tracing.process import ProcessSpan
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import ReadEvent, StreamEvents
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position
from agentstream.schemas.requests import HarnessChoice, InvokeRequest, StreamMode
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext
from tests.virtual_time import START, in_virtual_time, now

TRACE = TraceContext(trace_id="a" * 32, span_id="b" * 16)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One run to play."""

    options: dict[str, JsonValue] = field(default_factory=dict)
    text: str = "hi"
    limits: RunLimits = DEFAULT_LIMITS
    stream: StreamMode = "full"
    deadline: datetime | None = None
    ttl_ms: int | None = None
    timestamp_ms: int = int(START.timestamp() * 1000)
    attempt: int = 1
    crashes: int = 0
    agents_md: str = ""
    credentials: Credentials | None = None
    problem: Problem | None = None
    secrets: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    harness: Harness | None = None
    process: ProcessSpan | None = None
    metrics: Metrics | None = None

    def admitted(self) -> Admitted:
        request = InvokeRequest(
            id="run",
            session_id="session",
            messages=(Message.of_text("user", self.text),),
            deadline=self.deadline,
            ttl_ms=self.ttl_ms,
            metadata={"k": "v"},
        )
        return Admitted(
            request=request,
            position=Position(topic="t", partition=5, offset=7),
            timestamp_ms=self.timestamp_ms,
            process=self.process or ProcessSpan.none(TRACE),
            claim=3,
            attempt=self.attempt,
            crashes=self.crashes,
            parameters=EffectiveParameters(
                model="p/m",
                agents_md=self.agents_md,
                choice=HarnessChoice(kind="scripted", options=self.options),
                tools=self.tools,
                limits=self.limits,
                thinking="off",
                stream=self.stream,
                credentials=self.credentials,
                problem=self.problem,
            ),
        )


@dataclass
class Played:
    """What came out."""

    records: list[StreamEvents] = field(default_factory=list)
    results: list[InvokeResult] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ended: float = 0.0
    abandoned: int = 0

    @property
    def result(self) -> InvokeResult:
        (result,) = self.results
        return result

    @property
    def code(self) -> str | None:
        return self.result.error.code if self.result.error else None

    @property
    def events(self) -> list[ReadEvent]:
        return [event for record in self.records for event in record.events]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def last_attempt(self) -> list[ReadEvent]:
        return [event for record in self.records if record.attempt == self.result.attempt for event in record.events]


def play(scene: Scene | None = None, *, on_record: Callable[[Played, Interrupt], None] | None = None) -> Played:
    """Play a scene to its end in virtual time. `on_record` sees all that came, after each record."""
    return in_virtual_time(perform(scene or Scene(), on_record))


async def perform(scene: Scene, on_record: Callable[[Played, Interrupt], None] | None = None) -> Played:
    """The same, inside a loop of virtual time."""
    async with ScriptedHarness() as scripted:
        harness: Harness = scene.harness or scripted
        runs = Runs(
            {"scripted": harness}, redactor=Redactor(scene.secrets), rng=Random(1), now=now, metrics=scene.metrics
        )
        played, interrupt = Played(), Interrupt()
        async with aclosing(runs.execute(scene.admitted(), interrupt)) as outcomes:
            async for outcome in outcomes:
                assert not played.results, "something came after the result"
                if isinstance(outcome, InvokeResult):
                    played.results.append(outcome)
                    continue
                played.records.append(outcome)
                played.times.append((now() - START).total_seconds())
                if on_record is not None:
                    on_record(played, interrupt)
        played.ended = (now() - START).total_seconds()
        played.abandoned = runs.abandoned
        return played


class Faulty:
    """A harness that yields what a test says, allowed or not."""

    kind = "scripted"
    versions: Mapping[str, str] = {}

    def __init__(self, play: Callable[[HarnessRequest], AsyncIterator[HarnessEvent | Waiting | Terminal]]) -> None:
        self._play = play
        self.requests: list[HarnessRequest] = []

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        return None

    def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        self.requests.append(request)
        return self._play(request)

    async def health(self) -> str | None:
        return None
