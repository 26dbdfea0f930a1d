"""Sends dead letters again: each once, whatever kills it in the middle.

What it sends and how far it has come go out in one transaction, so that the next one of the same name goes on where
this one stood. Two of one name fence each other: the later one goes on, the earlier one ends.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from agentstream.consumers.coordinator import NO_OFFSET, CoordinatorError, GroupCoordinator
from agentstream.consumers.dead_letters import DeadLetters, Found, Selection
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.dead_letters import sent_again
from agentstream.producers.errors import Interrupted, Refused
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.dead_letters import DeadLetter
from agentstream.schemas.records import OutgoingRecord

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 20_000
"""What a redrive that was killed had under way holds readers of the input back for so long, unless it is run again."""
BATCH_BYTES = 4 * 1024 * 1024
MAX_FAILURES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RedrivePlan:
    """What is to be sent again, and where to."""

    connection: KafkaConnection
    """The cluster."""
    dead_letters: str
    """The topic of dead letters."""
    to: str
    """The topic to send them to."""
    group_id: str
    """Under which progress is kept; also the transactional id."""
    selection: Selection
    """Which ones."""
    max_count: int | None = None
    """Send so many at most; None: all."""
    max_redrives: int = 3
    """One that was sent again so often and died again is refused."""
    batch: int = 100
    """Dead letters per transaction."""
    max_record_bytes: int
    """Largest record."""
    dry_run: bool = False
    """Whether to look only."""


@dataclass(kw_only=True, slots=True)
class Counts:
    """What became of the records looked at."""

    looked_at: int = 0
    """Records of the dead-letter topic."""
    sent: int = 0
    """Sent again."""
    looping: int = 0
    """Refused: sent again too often already."""
    lost: int = 0
    """Truncated, and the original record is gone."""
    too_large: int = 0
    """Refused by the brokers for its size."""
    broken: int = 0
    """Records that are no dead letters."""
    expired: int = 0
    """Offsets that were gone before they were read."""

    def add(self, other: "Counts") -> None:
        """Add what a batch came to."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def refused(self) -> int:
        """Dead letters that were meant and could not be sent."""
        return self.looping + self.lost + self.too_large


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is done about one dead letter that is meant."""

    letter: DeadLetter
    """The dead letter."""
    run_id: str | None
    """The run it will be; None if it is refused."""
    why_not: str | None = None
    """Why it is refused."""


@dataclass(kw_only=True, slots=True)
class _Batch:
    """What goes into the next transaction of one partition."""

    next_offset: int
    records: list[tuple[OutgoingRecord, int]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def size(self) -> int:
        return sum(record.size for record, _ in self.records)


class Redriver:
    """One redrive. `run` once; nothing to close."""

    def __init__(self, plan: RedrivePlan, *, told: Callable[[Step], None], progress: Callable[[Counts], None]) -> None:
        """`told`: each dead letter that is meant; `progress`: after each transaction."""
        self._plan = plan
        self._letters = DeadLetters(plan.connection, plan.dead_letters)
        self._told = told
        self._progress = progress
        self._batches: dict[int, _Batch] = {}
        self._partitions = 1
        self._ends: dict[int, int] = {}
        self._writer: ResultWriter | None = None
        self._in_doubt: tuple[int, _Batch] | None = None
        self.counts = Counts()

    async def run(self) -> Counts:
        """Send them. Raises Fenced if another redrive of this name began, Interrupted if the brokers stay away.

        Also as `TopicReader` for the topics, and CoordinatorError. Whatever it raises, running it again goes on.
        """
        self._partitions = await self._target_partitions()
        failures = 0
        while True:
            before = self.counts.looked_at
            try:
                await self._pass()
            except (Interrupted, CoordinatorError) as error:
                failures = 1 if self.counts.looked_at > before else failures + 1
                if failures > MAX_FAILURES:
                    raise
                log.warning("the redrive is interrupted and goes on in a moment: %s", error)
                await asyncio.sleep(min(0.2 * 2**failures, 5.0))
            else:
                return self.counts
            finally:
                await self._close()

    async def _pass(self) -> None:
        plan = self._plan
        if not plan.dry_run:
            # Fence first: what is read then stays true.
            await self._open()
        start = await self._start()
        await self._settle_doubt(start)
        self._batches = {number: _Batch(next_offset=offset) for number, offset in start.items()}
        async for found in self._letters.read(plan.selection, start):
            if isinstance(found, Expired):
                self.counts.expired += found.resumed_at - found.expected
                continue
            if found.record.position.offset >= self._ends[found.record.position.partition]:
                # Too new for `until`: passed over now, it would never be sent under this name.
                continue
            batch = self._batches[found.record.position.partition]
            await self._look(found, batch)
            if (
                len(batch.records) >= plan.batch
                or batch.size >= BATCH_BYTES
                or batch.counts.looked_at >= 100 * plan.batch
            ):
                await self._flush(found.record.position.partition)
            if plan.max_count is not None and self._taken >= plan.max_count:
                break
        for partition in self._batches:
            await self._flush(partition)

    @property
    def _taken(self) -> int:
        return self.counts.sent + sum(batch.counts.sent for batch in self._batches.values())

    async def _look(self, found: Found, batch: _Batch) -> None:
        batch.next_offset = found.record.position.offset + 1
        batch.counts.looked_at += 1
        batch.counts.broken += found.broken is not None
        if found.letter is None:
            return
        letter = found.letter
        record = await self._letters.original(letter)
        if record is None:
            batch.counts.lost += 1
            where = letter.record.position
            self._told(Step(letter=letter, run_id=None, why_not=f"too large to be kept, and {where} is gone"))
            return
        redrive = letter.redriven(record)
        if redrive.count > self._plan.max_redrives:
            batch.counts.looping += 1
            why = f"sent again {redrive.count - 1} times already (--max-redrives)"
            self._told(Step(letter=letter, run_id=None, why_not=why))
            return
        # The session's other requests lie in that partition: it comes behind them.
        partition = letter.record.position.partition % self._partitions
        record_again = sent_again(record, redrive, topic=self._plan.to, partition=partition)
        batch.records.append((record_again, batch.next_offset))
        batch.counts.sent += 1
        self._told(Step(letter=letter, run_id=redrive.run_id))

    async def _flush(self, partition: int) -> None:
        batch = self._batches[partition]
        if batch.counts.looked_at == 0:
            return
        self._batches[partition] = _Batch(next_offset=batch.next_offset)
        if not self._plan.dry_run:
            self._in_doubt = (partition, batch)
            try:
                await self._commit([record for record, _ in batch.records], partition, batch.next_offset)
            except Refused:
                self._in_doubt = None
                await self._one_by_one(partition, batch)
            self._in_doubt = None
        self.counts.add(batch.counts)
        self._progress(self.counts)

    async def _one_by_one(self, partition: int, batch: _Batch) -> None:
        """The brokers refuse a batch for one of its records: find out which, and send the others."""
        for record, next_offset in batch.records:
            await self._open()
            try:
                await self._commit([record], partition, next_offset)
            except Refused:
                await self._open()
                await self._commit([], partition, next_offset)
                batch.counts.sent -= 1
                batch.counts.too_large += 1
                log.warning("the brokers refuse the record of %s/%d", self._plan.dead_letters, next_offset - 1)

    async def _commit(self, records: list[OutgoingRecord], partition: int, next_offset: int) -> None:
        assert self._writer is not None
        offset = InputOffset(topic=self._plan.dead_letters, partition=partition, offset=next_offset, metadata="")
        await self._writer.commit(records, offset)

    async def _open(self) -> None:
        await self._close()
        plan = self._plan
        self._writer = ResultWriter(
            plan.connection,
            plan.group_id,
            transactional_id=plan.group_id,
            max_record_bytes=plan.max_record_bytes,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        await self._writer.open()

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()

    async def _start(self) -> dict[int, int]:
        """Where each partition is to be read on from."""
        bounds = await self._letters.bounds(self._plan.selection)
        self._ends = {number: each.end for number, each in bounds.items()}
        start: dict[int, int] = {}
        async with GroupCoordinator(self._plan.connection, self._plan.group_id) as coordinator:
            for number, each in bounds.items():
                done = (await coordinator.committed(self._plan.dead_letters, number)).offset
                # Beyond the end: the topic was made anew since.
                start[number] = each.first if done == NO_OFFSET or done > each.log_end else max(done, each.first)
        return start

    async def _settle_doubt(self, start: dict[int, int]) -> None:
        """Whether a transaction whose end nobody told us was committed after all."""
        doubt, self._in_doubt = self._in_doubt, None
        if doubt is not None and start.get(doubt[0], NO_OFFSET) >= doubt[1].next_offset:
            self.counts.add(doubt[1].counts)

    async def _target_partitions(self) -> int:
        tail = Tail(lambda: tail_consumer(self._plan.connection, read_committed=True), self._plan.to)
        try:
            await tail.open()
            return len(await tail.partitions())
        finally:
            await tail.close()
