"""The seams of a simulated worker: its group consumer, its transactional writers, its questions to the coordinator.

What a worker asks of a broker happens there at a moment of its own, whether the worker that asked still lives, stands
still, or was told that nothing is known.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from agentstream.consumers.coordinator import CommittedOffset, CoordinatorError, Standing
from agentstream.consumers.source import Assignments
from agentstream.producers.errors import Fenced, Interrupted, Refused, WriteError
from agentstream.producers.results import InputOffset
from agentstream.schemas.records import OutgoingRecord, Record
from tests.support.simulation_group import HEARTBEAT_SECONDS, Group
from tests.support.simulation_log import Log
from tests.support.simulation_sent import Fault
from tests.support.simulation_time import Clock

POLL_SECONDS = 2.5
DELAYS = (0.001, 0.001, 0.003, 0.01, 0.03)
LATE_SECONDS = 1.0
SURE_SECONDS = 1.0
"""A heartbeat that was answered so long ago says nothing of now."""


class Process(Protocol):
    """What the brokers see of a worker."""

    name: str
    dead: bool
    cut: bool
    sure: float
    frozen_since_sure: bool


@dataclass
class Kafka:
    """The brokers. Everything here is plain; what takes time is in the seams."""

    clock: Clock
    rng: Random
    logs: list[Log]
    group: Group
    away_until: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def delay(self) -> float:
        """How long a packet takes."""
        return self.rng.choice(DELAYS)

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        """Have something happen at the brokers, so long from now."""
        self._count += 1
        heapq.heappush(self._events, (self.clock.now + seconds, self._count, happen))

    @property
    def due(self) -> float:
        """When something happens next."""
        return self._events[0][0] if self._events else float("inf")

    def happen(self) -> None:
        """What is due."""
        while self._events and self._events[0][0] <= self.clock.now:
            heapq.heappop(self._events)[2]()


async def _while_alive(process: Process, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if process.dead:
        await asyncio.Event().wait()


class Writer:
    """A transactional producer of one partition."""

    def __init__(self, kafka: Kafka, log: Log, process: Process) -> None:
        self._kafka, self._log, self._process = kafka, log, process
        self._epoch = -1

    async def open(self) -> "Writer":
        there, back = self._kafka.delay(), self._kafka.delay()
        self._kafka.at(there, self._fence)
        await _while_alive(self._process, there + back)
        return self

    def _fence(self) -> None:
        process, log = self._process, self._log
        if process.dead and process.cut:
            return
        owner = self._kafka.group.owner(log.number)
        unsure = self._kafka.clock.now - process.sure > SURE_SECONDS
        if owner not in (None, process.name) and unsure and not process.frozen_since_sure:
            log.wrong(f"{process.name} fenced {owner}, who owns the partition")
        self._epoch = log.fence()

    async def close(self) -> None:
        await asyncio.sleep(self._kafka.delay())
        self._epoch = -1

    def begin(self, _partitions: object) -> None:
        """Writes nothing, and is followed by a commit, or by nothing."""

    async def commit(self, records: Sequence[OutgoingRecord], offset: InputOffset) -> None:
        log = self._log
        faults = log.faults_of_results if records and log.faults_of_results else log.faults
        fault = faults.popleft() if faults else None
        there, back = self._kafka.delay(), self._kafka.delay()
        epoch, written = self._epoch, tuple(records)
        error: list[WriteError] = []

        def arrive() -> None:
            if self._process.dead and self._process.cut:
                return
            if epoch != log.epoch:
                error.append(Fenced("another producer"))
            elif log.refuses(written):
                error.append(Refused("too large"))
            else:
                log.write(written, offset)

        if fault is not Fault.LOST:
            self._kafka.at(there + LATE_SECONDS * (fault is Fault.LATE), arrive)
        await _while_alive(self._process, there + back)
        if fault is not None:
            raise Interrupted("gone", in_doubt=True)
        if error:
            raise error[0]


class Coordinator:
    """Answers a worker's questions."""

    def __init__(self, kafka: Kafka, process: Process) -> None:
        self._kafka, self._process = kafka, process

    async def _travel(self) -> None:
        await _while_alive(self._process, self._kafka.delay())
        if self._kafka.clock.now < self._kafka.away_until:
            raise CoordinatorError("it is loading")

    async def partition_count(self, _topic: str) -> int:
        return len(self._kafka.logs)

    async def committed(self, _topic: str, partition: int) -> CommittedOffset:
        await self._travel()
        answer = self._kafka.logs[partition].offset_as_read()
        await self._travel()
        return answer

    async def standing(self, generation: int, member_id: str) -> Standing:
        await self._travel()
        answer, asked = self._kafka.group.heartbeat(generation, member_id), self._kafka.clock.now
        if answer is Standing.MEMBER:
            self._process.sure, self._process.frozen_since_sure = asked, False
        await self._travel()
        return answer


class Source:
    """The group consumer of a worker."""

    def __init__(self, kafka: Kafka, process: Process, assignments: Assignments) -> None:
        self._kafka, self._process, self._assignments = kafka, process, assignments
        self._positions: dict[int, int] = {}
        self._flowing: set[int] = set()
        self._moving = True
        self._member_id: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.membership = (-1, "")
        self.news = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._coordinate(), name="group")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._member_id is not None and not self._process.dead:
            self._kafka.group.leave(self._member_id)
        self.membership = (-1, "")

    async def _coordinate(self) -> None:
        group = self._kafka.group
        while True:
            await self._assignments.revoked()
            self._moving = True
            self._member_id = group.join(self._process.name, self._member_id)
            await _while_alive(self._process, self._kafka.delay())
            while (given := group.assignment(self._member_id)) is None:
                await _while_alive(self._process, 0.3)
            generation, partitions = given
            if generation < 0:
                self._member_id = None
                continue
            self._positions = {number: self._assignments.resume_offset(number) or 0 for number in partitions}
            self._flowing = set()
            self.membership = (generation, self._member_id)
            self._moving = False
            self._assignments.assigned(partitions)
            while True:
                await _while_alive(self._process, HEARTBEAT_SECONDS)
                if group.heartbeat(generation, self._member_id) is not Standing.MEMBER:
                    break
            if self._member_id not in group.members:
                self._member_id, self.membership = None, (-1, "")

    async def poll(self) -> list[Record]:
        await _while_alive(self._process, 0.002)
        if not (records := self._fetched()):
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self.news.wait()
            except TimeoutError:
                pass
            records = self._fetched()
        self.news.clear()
        return records

    def _fetched(self) -> list[Record]:
        records: list[Record] = []
        for number in sorted(self._flowing) if not self._moving else ():
            log = self._kafka.logs[number]
            position = max(self._positions[number], log.begin)
            found = log.records[position : position + 50]
            self._positions[number] = position + len(found)
            records += [record for record in found if record is not None]
        return records

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def hold(self, partition: int) -> None:
        self._flowing.discard(partition)

    def flow(self, partition: int) -> None:
        if partition in self._positions and partition not in self._flowing:
            self._flowing.add(partition)
            self.news.set()

    async def position(self, partition: int) -> int | None:
        return self._positions.get(partition)

    def unreadable(self, _partition: int) -> None:
        return None

    async def bounds(self, partition: int) -> tuple[int, int]:
        await _while_alive(self._process, self._kafka.delay())
        log = self._kafka.logs[partition]
        return log.begin, len(log.records)
