"""A topic as everybody reads it who is not a worker: without a group, from positions of the reader's choice.

Goes on after whatever happens to the brokers, from where it stood, and says what it could not read.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from agentstream.consumers.kafka import Consumer, stop_consumer, to_record
from agentstream.consumers.lenient import UNREADABLE_SECONDS, Unreadable
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)

ASK_SECONDS = 15.0
"""For an answer about offsets: a broker that restarts is back after 6 to 13 s."""
MISSING_SECONDS = 2.0
"""A topic that was just created is not known to every broker at once."""
MAX_DELAY_SECONDS = 5.0


class TopicMissing(Exception):
    """A topic, or a partition of it, does not exist. Nothing is created by asking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """Records that were to be read and are no longer on the log, or never were: the topic was made anew."""

    topic: str
    """The topic."""
    partition: int
    """The partition."""
    expected: int
    """The offset that was to be read next."""
    resumed_at: int
    """The offset with which reading goes on: the beginning of the log."""


class Tail:
    """Reads partitions of one topic. Connects by itself when asked something, `close` ends it; one task may `poll`.

    Starts paused and without positions: `seek` gives them, `resume` begins.
    """

    def __init__(self, new_consumer: Callable[[], Consumer], topic: str) -> None:
        self._new_consumer = new_consumer
        self._topic = topic
        self._consumer: Consumer | None = None
        self._connecting = asyncio.Lock()
        self._paused = True
        self._delay = 0.0
        self._unreadable: dict[int, tuple[Unreadable, float]] = {}
        self.positions: dict[int, int] = {}
        """The next offset of each partition that is read; may stand before markers, which are no records."""

    async def open(self, *, also: Collection[str] = ()) -> None:
        """Connect and look. Raises KafkaError, OSError, TimeoutError, or TopicMissing: this topic or one of `also`."""
        try:
            missing = await self._missing({self._topic, *also})
            looked_until = asyncio.get_running_loop().time() + MISSING_SECONDS
            while missing and asyncio.get_running_loop().time() < looked_until:
                await asyncio.sleep(0.1)
                missing = await self._missing(missing)
            if missing:
                raise TopicMissing(f"no such topic: {', '.join(sorted(missing))}")
        except BaseException:
            await self.close()
            raise

    async def _missing(self, topics: set[str]) -> set[str]:
        async with asyncio.timeout(ASK_SECONDS):
            consumer = await self._connected()
            # All metadata: asked for by name, a missing topic would be created where the brokers allow that.
            known: set[str] = await consumer.topics()
            return topics - known

    async def close(self) -> None:
        """End the connection. May be called at any time, and again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def partitions(self) -> tuple[int, ...]:
        """The topic's partitions as the cluster has them now. Raises as `ends`."""
        async with asyncio.timeout(ASK_SECONDS):
            consumer = await self._connected()
            await consumer._client.add_topic(self._topic)
            await consumer._client.force_metadata_update()
        if not (numbers := consumer.partitions_for_topic(self._topic)):
            raise KafkaConnectionError(f"no broker says which partitions {self._topic} has")
        return tuple(sorted(numbers))

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offsets that records still to be written will have at least. Raises KafkaError, OSError, TimeoutError."""
        async with asyncio.timeout(ASK_SECONDS):
            consumer = await self._connected()
            return self._numbers(await consumer.end_offsets(self._names(partitions)))

    async def beginnings(self, partitions: Iterable[int]) -> dict[int, int]:
        """The lowest offsets there are. Raises as `ends`."""
        async with asyncio.timeout(ASK_SECONDS):
            consumer = await self._connected()
            return self._numbers(await consumer.beginning_offsets(self._names(partitions)))

    async def first_since(self, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        """Offsets of the first records with at least this timestamp, where there are any. Raises as `ends`."""
        asked = dict.fromkeys(self._names(partitions), timestamp_ms)
        async with asyncio.timeout(ASK_SECONDS):
            consumer = await self._connected()
            answer = await consumer.offsets_for_times(asked)
        return {name.partition: found.offset for name, found in answer.items() if found is not None}

    async def reached(self) -> dict[int, int]:
        """The positions, markers and aborted records behind them included."""
        consumer = await self._connected()
        return {name.partition: await consumer.position(name) for name in self._names(self.positions)}

    def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from here; others that are read go on as they were."""
        grown = not positions.keys() <= self.positions.keys()
        self.positions.update(positions)
        if grown:
            self._assign()
        else:
            self._seek(positions)

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause(*self._names(self.positions))

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Read from the positions; of these partitions alone, until a new connection reads all of them."""
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume(*self._names(self.positions if partitions is None else partitions))

    async def poll(self, seconds: float) -> list[Record | Expired]:
        """What came, maybe nothing after `seconds`. Raises TopicAuthorizationFailedError.

        A consumer that fails is replaced, and the new one begins where the old one stood. A partition that cannot be
        read on, whoever tries, is said to be so once; it stays where it is, and is tried again every half minute.
        """
        try:
            if self._consumer is None:
                await asyncio.sleep(self._delay)
            consumer = await self._connected()
            self._try_unreadable(consumer)
            batches = await consumer.getmany(timeout_ms=int(seconds * 1000))
            self._hold_unreadable(consumer)
            _check_fetcher(consumer)
        except OffsetOutOfRangeError as error:
            return await self._skip_expired(error)
        except TopicAuthorizationFailedError:
            raise
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            await self._failed(error)
            return []
        self._delay = 0.0
        for name, batch in batches.items():
            self.positions[name.partition] = batch[-1].offset + 1
        return [to_record(raw) for batch in batches.values() for raw in batch]

    def _hold_unreadable(self, consumer: Consumer) -> None:
        while consumer.unreadable:
            where, found = consumer.unreadable.popitem()
            if self._unreadable.get(where.partition, (None, 0.0))[0] != found:
                log.error("%s/%d cannot be read from %d on: %s", self._topic, where.partition, *found.told)
            self._unreadable[where.partition] = (found, _now() + UNREADABLE_SECONDS)
            consumer.pause(where)

    def _try_unreadable(self, consumer: Consumer) -> None:
        if not self._paused:
            for number, (found, at) in self._unreadable.items():
                if at <= _now():
                    self._unreadable[number] = (found, math.inf)
                    consumer.resume(*self._names([number]))

    async def _skip_expired(self, error: OffsetOutOfRangeError) -> list[Record | Expired]:
        expected = {name.partition: offset for name, offset in error.args[0].items()}
        try:
            begin = await self.beginnings(expected)
        except (KafkaError, OSError, TimeoutError) as again:
            await self._failed(again)
            return []
        self.seek(begin)
        return [
            Expired(topic=self._topic, partition=number, expected=offset, resumed_at=begin[number])
            for number, offset in expected.items()
        ]

    async def _failed(self, error: BaseException) -> None:
        self._delay = min(max(2 * self._delay, 0.1), MAX_DELAY_SECONDS)
        log.warning("reading %s failed and begins again in %.1f s: %r", self._topic, self._delay, error)
        await self.close()

    async def _connected(self) -> Consumer:
        async with self._connecting:
            if self._consumer is None:
                consumer = self._new_consumer()
                try:
                    async with asyncio.timeout(ASK_SECONDS):
                        await consumer.start()
                except BaseException:
                    await stop_consumer(consumer)
                    raise
                self._consumer = consumer
                self._assign()
            return self._consumer

    def _assign(self) -> None:
        if self._consumer is not None and self.positions:
            self._consumer.assign(self._names(self.positions))
            self._seek(self.positions)
            if self._paused:
                self.pause()

    def _seek(self, positions: Mapping[int, int]) -> None:
        if self._consumer is not None:
            for number, offset in positions.items():
                self._consumer.seek(TopicPartition(self._topic, number), offset)

    def _names(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in partitions]

    def _numbers(self, offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
        return {name.partition: offset for name, offset in offsets.items()}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _check_fetcher(consumer: Consumer) -> None:
    """Raise if aiokafka's fetch task has died of a bug: `getmany` itself would return nothing for ever."""
    task: asyncio.Task[None] = consumer._fetcher.error_future
    if task.done():
        raise KafkaError(f"the fetch task ended: {None if task.cancelled() else task.exception()!r}")
