"""Poll, pause, rebalance: bytes in, records out.

poll() -> Records                    never stops being called: backpressure is `hold(partition)`
Assignments.revoked / .assigned      plain calls from inside the rebalance
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from agentstream.consumers.kafka import Consumer, stop_consumer, to_record
from agentstream.consumers.lenient import UNREADABLE_SECONDS, Unreadable
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)

POLL_MS = 500
MAX_POLL_RECORDS = 500


class Assignments(Protocol):
    """Who hears of rebalances. All calls must return soon: they run inside aiokafka's rebalance, which swallows
    exceptions and holds up the whole group while it waits."""

    async def revoked(self) -> None:
        """A rebalance began; what we keep is not known yet. We join when this returns, and nothing moves before."""
        ...

    def assigned(self, partitions: Collection[int]) -> None:
        """These partitions are ours now, and no others. All of them are held."""
        ...

    def resume_offset(self, partition: int) -> int | None:
        """Where to go on reading a partition that was ours before, or None."""
        ...


class Source:
    """The one group consumer of a worker. Opened by `start`, closed by `stop`."""

    def __init__(self, consumer: Consumer, topic: str, assignments: Assignments) -> None:
        self._consumer = consumer
        self._topic = topic
        self._listener = _Listener(self, assignments)
        self._holding: dict[int, bool] = {}
        self._unreadable: dict[int, tuple[Unreadable, float]] = {}
        self._generation = -1

    async def start(self) -> None:
        """Connect and subscribe. Does not wait for an assignment: a SIGTERM must not either (24 s seen)."""
        await self._consumer.start()
        self._consumer.subscribe([self._topic], listener=self._listener)

    async def stop(self) -> None:
        """Leave the group and close, in bounded time."""
        await stop_consumer(self._consumer)

    async def poll(self) -> list[Record]:
        """What arrived, in order within a partition; empty after half a second without records.

        A broken connection is no reason to stop polling: that would cost the membership. Neither is a rebalance, but
        within one aiokafka waits for the assignment whatever the time-out says: for ever while the coordinator is
        away, and nobody would look at a SIGTERM. Cut short, no record is lost: they are handed out without a wait.

        A partition that cannot be read on is held where it stands, and tried again after half a minute.
        """
        records = await self._fetched()
        self._hold_unreadable()
        return records

    async def _fetched(self) -> list[Record]:
        try:
            async with asyncio.timeout(POLL_MS / 1000 + 0.5):
                batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
        except TimeoutError:
            return []
        except OffsetOutOfRangeError as error:
            for where, offset in error.args[0].items():
                await self._follow_the_log(where.partition, offset)
            return []
        except KafkaError as error:
            log.warning("polling failed, going on: %r", error)
            await asyncio.sleep(0.2)
            return []
        return [to_record(raw) for records in batches.values() for raw in records]

    def _hold_unreadable(self) -> None:
        while self._consumer.unreadable:
            where, found = self._consumer.unreadable.popitem()
            if not self._owns(where.partition):
                continue
            self.hold(where.partition)
            if self.unreadable(where.partition) != found:
                log.error("partition %d is held, it cannot be read from %d on: %s", where.partition, *found.told)
            self._unreadable[where.partition] = (found, _now() + UNREADABLE_SECONDS)

    def unreadable(self, partition: int) -> Unreadable | None:
        """Where a partition could not be read on when that was last tried, or None."""
        return self._unreadable[partition][0] if partition in self._unreadable else None

    async def _follow_the_log(self, partition: int, offset: int) -> None:
        """A position that has left the log: retention does not wait for a partition that is held. Nobody would position
        it anew, and it would never be read again."""
        try:
            async with asyncio.timeout(POLL_MS / 1000):
                begin, end = await self.bounds(partition)
        except (KafkaError, TimeoutError) as error:
            log.warning("partition %d is to be positioned anew, and its bounds are not known: %r", partition, error)
            return
        if offset < begin:
            log.error("partition %d: up to %d requests expired before anyone read them", partition, begin - offset)
            self.seek(partition, begin)
        else:
            log.error("partition %d: position %d is beyond the log's end %d", partition, offset, end)
            await asyncio.sleep(0.2)

    @property
    def membership(self) -> tuple[int, str]:
        """(generation, member id) of the last assignment that was delivered here; generation −1 while there is none.

        aiokafka knows a new generation before it knows what is assigned in it, and in between the broker answers its
        heartbeats without error: a zombie that just woke would believe it still owned what it had, and fence the
        live owner.
        """
        coordinator: Any = self._consumer._coordinator
        generation: int = getattr(coordinator, "generation", -1)
        if generation != self._generation:
            return (-1, "")
        return (generation, getattr(coordinator, "member_id", ""))

    def seek(self, partition: int, offset: int) -> None:
        """Read on from here. Nothing happens if the partition is no longer ours."""
        try:
            self._consumer.seek(self._at(partition), offset)
            self._unreadable.pop(partition, None)
        except IllegalStateError:
            log.info("partition %d went away before it was positioned", partition)

    def hold(self, partition: int) -> None:
        """Stop fetching a partition; what was fetched ahead is thrown away."""
        if self._holding.get(partition) is False and self._owns(partition):
            self._consumer.pause(self._at(partition))
            self._holding[partition] = True

    def flow(self, partition: int) -> None:
        """Fetch it again, unless it could not be read a moment ago."""
        if partition in self._unreadable and self._unreadable[partition][1] > _now():
            return
        if self._holding.get(partition) and self._owns(partition):
            self._consumer.resume(self._at(partition))
            self._holding[partition] = False

    async def bounds(self, partition: int) -> tuple[int, int]:
        """(first offset, end offset) of the partition's log. Raises KafkaError."""
        where = self._at(partition)
        begin = await self._consumer.beginning_offsets([where])
        end = await self._consumer.end_offsets([where])
        return begin[where], end[where]

    def seen_end(self, partition: int) -> int | None:
        """The log's end as the last fetch told it; None before the first, or if the partition is not ours."""
        if not self._owns(partition):
            return None
        end: int | None = self._consumer.highwater(self._at(partition))
        return end

    async def position(self, partition: int) -> int | None:
        """Up to where the partition was read, or None if it is not ours."""
        try:
            position: int = await self._consumer.position(self._at(partition))
        except (IllegalStateError, KafkaError):
            return None
        return position

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _owns(self, partition: int) -> bool:
        return self._at(partition) in self._consumer.assignment()

    def _take_over(self, assigned: Collection[TopicPartition], resume: Assignments) -> None:
        """First thing in an assignment, without an await before it.

        Records are handed out before the listener returns, so everything is paused. One partition without a position
        blocks fetches from its whole broker, so everything gets one; a seek is not overwritten by a committed offset.
        """
        if assigned:
            self._consumer.pause(*assigned)
        for where in assigned:
            self._consumer.seek(where, resume.resume_offset(where.partition) or 0)
        self._holding = {where.partition: True for where in assigned}
        self._unreadable.clear()
        # The assignor never learns its generation by itself. After a conflict the first member listed would win,
        # even a zombie that just woke.
        coordinator: Any = self._consumer._coordinator
        self._generation = coordinator.generation
        for assignor in coordinator._assignors:
            assignor.on_generation_assignment(coordinator.generation)


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, source: Source, assignments: Assignments) -> None:
        self._source = source
        self._assignments = assignments

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._assignments.revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._source._take_over(assigned, self._assignments)
        self._assignments.assigned({where.partition for where in assigned})
