"""A made-up Kafka at the engine's seams, for whole workers in virtual time: logs, transactions, fences, a group."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from agentstream.consumers.acquisition import Acquirer
from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.control import Control, Tombstones
from agentstream.consumers.coordinator import NO_OFFSET, CommittedOffset, CoordinatorError, GroupCoordinator, Standing
from agentstream.consumers.engine import Engine
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.index import LoadedIndex, _remember
from agentstream.consumers.intake import Intake
from agentstream.consumers.ledger import ranges
from agentstream.consumers.membership import Membership
from agentstream.consumers.metadata import CommitState, decode, encode
from agentstream.consumers.quarantine import Quarantine
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.runs import Runs
from agentstream.consumers.source import Assignments, Source
from agentstream.consumers.worker import Worker
from agentstream.producers.deltas import DeltaPublisher
from agentstream.producers.errors import Fenced, Interrupted, Refused, WriteError
from agentstream.producers.outcomes import OutcomeEncoder
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.records import OutgoingRecord, Position, Record
from agentstream.schemas.requests import CancelRun
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics
from tests.support.broken_brokers import BrokenBrokers
from tests.virtual_time import now

TOPICS = Topics()
SESSION_TIMEOUT = 15.0
AGENTS = WorkerAgentConfig(harnesses={"scripted": ScriptedHarness()}, default_harness="scripted")


@dataclass(frozen=True)
class Fault:
    """What becomes of one commit."""

    error: WriteError
    applied: bool = False


@dataclass
class Log:
    """One partition of every topic, and what the group has committed for the input's."""

    requests: list[Record | None] = field(default_factory=list)
    results: list[InvokeResult] = field(default_factory=list)
    index: list[OutgoingRecord] = field(default_factory=list)
    dead_letters: int = 0
    committed: CommittedOffset = field(default_factory=lambda: CommittedOffset(offset=NO_OFFSET, metadata=""))
    epoch: int = 0
    open_writers: int = 0
    faults: "deque[Fault]" = field(default_factory=deque)
    refuse: set[str] = field(default_factory=set)

    @property
    def state(self) -> CommitState:
        return decode(self.committed.offset, self.committed.metadata)

    def request(self, session: str = "s", *, run_id: str | None = None, **options: object) -> Record:
        """Append a request for the scripted harness."""
        offset = len(self.requests)
        harness = {"kind": "scripted", "options": {"text": "hello there", **options}}
        body = {
            "id": run_id or f"run-{offset}",
            "session_id": session,
            "messages": [{"role": "user", "content": "hi"}],
            "parameters": {"harness": harness},
        }
        return self.append(json.dumps(body).encode())

    def append(self, value: bytes) -> Record:
        position = Position(topic=TOPICS.invoke_requests, partition=0, offset=len(self.requests))
        record = Record(position=position, timestamp_ms=1_000, key=b"s", value=value)
        self.requests.append(record)
        return record

    def hole(self) -> None:
        """A transaction's marker: an offset without a record."""
        self.requests.append(None)

    def refuses(self, record: OutgoingRecord) -> bool:
        """Whether it is the result of a run that is never taken."""
        if record.topic != TOPICS.assistant_messages:
            return False
        return InvokeResult.model_validate_json(record.value or b"").run_id in self.refuse

    def left_behind(self, state: CommitState) -> None:
        """As another owner commits, who fenced whoever was there."""
        self.epoch += 1
        self.committed = CommittedOffset(offset=state.offset, metadata=encode(state))

    def write(self, records: Sequence[OutgoingRecord], offset: InputOffset) -> None:
        for record in records:
            if record.topic == TOPICS.assistant_messages:
                self.results.append(InvokeResult.model_validate_json(record.value or b""))
            elif record.topic == TOPICS.finished_runs:
                self.index.append(record)
            else:
                self.dead_letters += 1
        self.committed = CommittedOffset(offset=offset.offset, metadata=offset.metadata)


class _Writer:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._epoch = -1

    async def open(self) -> "_Writer":
        await asyncio.sleep(0.01)
        assert self._log.open_writers == 0, "a worker has one writer for a partition"
        self._log.open_writers += 1
        self._log.epoch += 1
        self._epoch = self._log.epoch
        return self

    async def close(self) -> None:
        await asyncio.sleep(0.01)
        if self._epoch >= 0:
            self._log.open_writers -= 1
            self._epoch = -1

    def begin(self, _partitions: object) -> None:
        assert self._epoch >= 0, "a transaction begins on an open writer"

    async def commit(self, records: Sequence[OutgoingRecord], offset: InputOffset) -> None:
        await asyncio.sleep(0.01)
        if self._epoch != self._log.epoch:
            raise Fenced("another owner")
        if any(self._log.refuses(record) for record in records):
            raise Refused("too large")
        if not self._log.faults:
            self._log.write(records, offset)
            return
        fault = self._log.faults.popleft()
        if fault.applied:
            self._log.write(records, offset)
        raise fault.error


class MadeUpSource:
    """The group consumer of a worker: the test says what is assigned to it."""

    def __init__(self, logs: dict[int, Log], assignments: Assignments) -> None:
        self._logs, self._assignments = logs, assignments
        self._positions: dict[int, int] = {}
        self.flowing: set[int] = set()
        self.membership = (-1, "")
        self.late: list[Record] = []

    def assign(self, *partitions: int) -> None:
        """A rebalance ended."""
        self.membership = (self.membership[0] + 1, "me")
        self._positions = {number: self._assignments.resume_offset(number) or 0 for number in partitions}
        self.flowing = set()
        self._assignments.assigned(partitions)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.membership = (-1, "")

    async def poll(self) -> list[Record]:
        records, self.late = self.late, []
        for number in self.flowing:
            found = self._logs[number].requests[self._positions[number] :][:500]
            self._positions[number] += len(found)
            records += [record for record in found if record is not None]
        await asyncio.sleep(0 if records else 0.5)
        return records

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def hold(self, partition: int) -> None:
        self.flowing.discard(partition)

    def flow(self, partition: int) -> None:
        if partition in self._positions:
            self.flowing.add(partition)

    async def position(self, partition: int) -> int | None:
        return self._positions.get(partition)

    def unreadable(self, _partition: int) -> None:
        return None

    async def bounds(self, partition: int) -> tuple[int, int]:
        return 0, len(self._logs[partition].requests)


class _Coordinator:
    def __init__(self, world: "World") -> None:
        self._world = world

    async def partition_count(self, _topic: str) -> int:
        return len(self._world.logs)

    async def committed(self, _topic: str, partition: int) -> CommittedOffset:
        return self._world.logs[partition].committed

    async def standing(self, _generation: int, _member_id: str) -> Standing:
        if self._world.standing is None:
            raise CoordinatorError("away")
        return self._world.standing


class MadeUpControl:
    """A control topic that was read to its end; `cancel` is a record that comes."""

    def __init__(self) -> None:
        self.tombstones = Tombstones()
        self._listener: Callable[[CancelRun], None] = lambda _: None

    def listen(self, listener: Callable[[CancelRun], None]) -> None:
        self._listener = listener

    async def caught_up(self) -> None: ...

    def find(self, run_id: str) -> CancelRun | None:
        return self.tombstones.find(run_id)

    def cancel(self, cancel: CancelRun) -> None:
        self.tombstones.bury(cancel)
        self._listener(cancel)


class World:
    """One worker, and the Kafka that it believes to see."""

    def __init__(self, *, partitions: int = 1, slots: int = 8, max_held: int = 10_000) -> None:
        self.logs = {number: Log() for number in range(partitions)}
        self.standing: Standing | None = Standing.MEMBER
        self.brokers = BrokenBrokers()
        self.deltas = DeltaPublisher(self.brokers.new_producer)
        self.control = MadeUpControl()
        self.intake = Intake(max_held=max_held)
        self.stop = asyncio.Event()
        coordinator = cast("GroupCoordinator", _Coordinator(self))
        clock = asyncio.get_running_loop().time
        engine = Engine(
            topics=TOPICS,
            runs=Runs(AGENTS.harnesses, redactor=Redactor([]), now=now),
            agent_config=AGENTS,
            deltas=self.deltas,
            encoder=OutcomeEncoder(TOPICS, "group", max_record_bytes=1_000_000),
            membership=Membership(
                coordinator, lambda: self.source.membership, session_timeout_s=SESSION_TIMEOUT, clock=clock
            ),
            control=cast("Control", self.control),
            quarantine=Quarantine(),
            slots=asyncio.Semaphore(slots),
            intake=self.intake,
            clock=clock,
        )
        self.index_error: BaseException | None = None
        self.sources: list[MadeUpSource] = []
        self.worker = Worker(engine, self._new_source, lambda source: self._acquirer(coordinator, source))

    @property
    def source(self) -> MadeUpSource:
        return self.sources[0]

    @property
    def log(self) -> Log:
        """The first partition."""
        return self.logs[0]

    def _new_source(self, assignments: Assignments) -> Source:
        self.sources.append(MadeUpSource(self.logs, assignments))
        return cast("Source", self.source)

    def _acquirer(self, coordinator: GroupCoordinator, source: Source) -> Acquirer:
        return Acquirer(
            topics=TOPICS,
            coordinator=coordinator,
            new_writer=lambda number: cast("ResultWriter", _Writer(self.logs[number])),
            read_index=self._read_index,
            bounds=source.bounds,
            now_ms=lambda: 0,
        )

    async def _read_index(self, partition: int, whole: bool) -> LoadedIndex:
        if self.index_error is not None:
            raise self.index_error
        hashes: dict[str, str] = {}
        lines = [_remember(line.key, line.value, hashes) for line in self.logs[partition].index]
        done = [found[0] for found in lines if found is not None]
        return LoadedIndex(hashes=hashes, done=ranges(done) if whole else [])

    async def serve(self, *, grace_s: float = 20.0) -> None:
        """Until `stop` is set, or cancelled."""
        async with self.deltas:
            await self.worker.serve(self.stop, grace_s=grace_s)


INTERRUPTED = Interrupted("gone", in_doubt=True)


def runs(results: Collection[InvokeResult]) -> list[str]:
    """Run ids in the order of their results."""
    return [result.run_id for result in results]
