"""The redrive itself: what lies on the topic, read, looked at, and sent again in batches."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from agentstream.consumers.coordinator import NO_OFFSET, CoordinatorError, GroupCoordinator
from agentstream.consumers.dead_letters import DeadLetters, Found
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.consumers.redrive.batches import Batch, BatchWriter
from agentstream.consumers.redrive.plan import RedrivePlan
from agentstream.consumers.redrive.steps import Counts, Step
from agentstream.producers.dead_letters import sent_again
from agentstream.producers.errors import Interrupted, Refused

log = logging.getLogger(__name__)

MAX_FAILURES = 5


class Redriver:
    """One redrive. `run` once; nothing to close."""

    def __init__(self, plan: RedrivePlan, *, told: Callable[[Step], None], progress: Callable[[Counts], None]) -> None:
        """`told`: each dead letter that is meant; `progress`: after each transaction."""
        self._plan = plan
        self._letters = DeadLetters(plan.connection, plan.dead_letters)
        self._told = told
        self._progress = progress
        self._batches: dict[int, Batch] = {}
        self._partitions = 1
        self._ends: dict[int, int] = {}
        self._writer = BatchWriter(plan)
        self._in_doubt: tuple[int, Batch] | None = None
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
                await self._writer.close()

    async def _pass(self) -> None:
        plan = self._plan
        if not plan.dry_run:
            # Fence first: what is read then stays true.
            await self._writer.open()
        start = await self._start()
        await self._settle_doubt(start)
        self._batches = {number: Batch(next_offset=offset) for number, offset in start.items()}
        async with aclosing(self._letters.read(plan.selection, start)) as all_found:
            async for found in all_found:
                if isinstance(found, Expired):
                    self.counts.expired += found.resumed_at - found.expected
                    continue
                if found.record.position.offset >= self._ends[found.record.position.partition]:
                    # Too new for `until`: passed over now, it would never be sent under this name.
                    continue
                batch = self._batches[found.record.position.partition]
                await self._look(found, batch)
                if batch.is_full(plan.batch):
                    await self._flush(found.record.position.partition)
                if plan.max_count is not None and self._taken >= plan.max_count:
                    break
        for partition in self._batches:
            await self._flush(partition)

    @property
    def _taken(self) -> int:
        return self.counts.sent + sum(batch.counts.sent for batch in self._batches.values())

    async def _look(self, found: Found, batch: Batch) -> None:
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
        self._batches[partition] = Batch(next_offset=batch.next_offset)
        if not self._plan.dry_run:
            self._in_doubt = (partition, batch)
            try:
                await self._writer.write(partition, batch)
            except Refused:
                self._in_doubt = None
                await self._writer.write_one_by_one(partition, batch)
            self._in_doubt = None
        self.counts.add(batch.counts)
        self._progress(self.counts)

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
