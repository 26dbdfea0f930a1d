"""One simulated worker: the real one, in a loop of its own, between made-up seams."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from agentstream.consumers.acquisition import Acquirer
from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.control import Control
from agentstream.consumers.coordinator import GroupCoordinator
from agentstream.consumers.engine import Engine
from agentstream.consumers.harness.port import HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.index import LoadedIndex
from agentstream.consumers.intake import Intake
from agentstream.consumers.membership import Membership
from agentstream.consumers.quarantine import Quarantine
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.runs import Runs
from agentstream.consumers.source import Assignments
from agentstream.consumers.source import Source as RealSource
from agentstream.consumers.worker import Worker
from agentstream.producers.deltas import DeltaPublisher
from agentstream.producers.outcomes import OutcomeEncoder
from agentstream.producers.results import ResultWriter
from tests.support.broken_brokers import BrokenBrokers
from tests.support.made_up_kafka import MadeUpControl
from tests.support.simulation_group import SESSION_SECONDS
from tests.support.simulation_kafka import Coordinator, Source, Writer
from tests.support.simulation_log import TOPICS
from tests.support.simulation_sent import Kind
from tests.support.simulation_time import PuppetLoop
from tests.virtual_time import START

if TYPE_CHECKING:
    from tests.support.simulation import Fleet

GRACE_SECONDS = 3.0
SLOTS = 4
NORMAL_CLAIM_MS = 1_000_000


class _Harness(ScriptedHarness):
    """The scripted one, after as long as the request says; it watches what runs when, and some requests kill."""

    def __init__(self, process: "Process", fleet: "Fleet") -> None:
        super().__init__()
        self._process, self._fleet = process, fleet

    async def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        log, sent = self._fleet.find(request.run_id)
        self._fleet.begins(self._process, log, sent)
        try:
            await asyncio.sleep(sent.seconds)
            if sent.kind is Kind.KILLS:
                self._fleet.kill(self._process)
                await asyncio.Event().wait()
            async for event in super().run(request):
                yield event
        finally:
            self._process.running.discard(request.run_id)


class Process:
    """A worker, its loop, and whether it lives."""

    def __init__(self, name: str, fleet: "Fleet") -> None:
        self.name = name
        self.loop = PuppetLoop(fleet.clock)
        self.dead = self.cut = self.frozen = self.stopping = False
        self.sure = -math.inf
        self.frozen_since_sure = False
        self.running: set[str] = set()
        self.control = MadeUpControl()
        self.source: Source | None = None
        self.worker: Worker | None = None
        self._fleet = fleet
        self._stop = asyncio.Event()
        self.serving = self.loop.create_task(self._serve(), name=name)

    async def _serve(self) -> None:
        fleet, kafka, loop = self._fleet, self._fleet.kafka, self.loop
        coordinator = cast("GroupCoordinator", Coordinator(kafka, self))
        agents = WorkerAgentConfig(harnesses={"scripted": _Harness(self, fleet)}, default_harness="scripted")
        deltas = DeltaPublisher(BrokenBrokers().new_producer)

        def new_source(assignments: Assignments) -> RealSource:
            self.source = Source(kafka, self, assignments)
            return cast("RealSource", self.source)

        def membership() -> tuple[int, str]:
            return (-1, "") if self.source is None else self.source.membership

        engine = Engine(
            topics=TOPICS,
            runs=Runs(
                agents.harnesses,
                redactor=Redactor([]),
                rng=fleet.kafka.rng,
                now=lambda: START + timedelta(seconds=loop.time()),
            ),
            agent_config=agents,
            deltas=deltas,
            encoder=OutcomeEncoder(TOPICS, "group", max_record_bytes=1_000_000),
            membership=Membership(coordinator, membership, session_timeout_s=SESSION_SECONDS, clock=loop.time),
            control=cast("Control", self.control),
            quarantine=Quarantine(),
            slots=asyncio.Semaphore(SLOTS),
            intake=Intake(max_held=1_000),
            clock=loop.time,
        )
        self.worker = Worker(engine, new_source, lambda source: self._acquirer(coordinator, source))
        async with deltas:
            await self.worker.serve(self._stop, grace_s=GRACE_SECONDS)
        if engine.intake.held:
            fleet.violations.append(f"{self.name} stopped and holds {engine.intake.held} requests")

    def _acquirer(self, coordinator: GroupCoordinator, source: RealSource) -> Acquirer:
        kafka = self._fleet.kafka
        return Acquirer(
            topics=TOPICS,
            coordinator=coordinator,
            new_writer=lambda number: cast("ResultWriter", Writer(kafka, kafka.logs[number], self)),
            read_index=self._read_index,
            bounds=source.bounds,
            now_ms=lambda: NORMAL_CLAIM_MS + round(self.loop.time() * 1_000),
        )

    async def _read_index(self, partition: int, whole: bool) -> LoadedIndex:
        await asyncio.sleep(self._fleet.kafka.delay())
        return self._fleet.kafka.logs[partition].whole_index(whole=whole)

    def poke(self, act: Callable[[], None]) -> None:
        """Have something happen in the worker, as soon as it runs."""
        self.loop.call_soon(act)
        self.loop.due = self.loop.clock.now

    def claim(self, partition: int) -> int | None:
        """The number of the claim that it believes to have."""
        found = (each for each in self.worker.partitions if each.number == partition) if self.worker else ()
        return next((each.claim.number for each in found if each.claim is not None), None)

    def stop(self) -> None:
        """SIGTERM."""
        self.stopping = True
        self.poke(self._stop.set)

    def news(self) -> None:
        """Records were written."""
        if self.source is not None:
            self.poke(self.source.news.set)
