"""When what stands on a topic was seen by a reader, in seconds since 1970: one clock for all processes of a machine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from aiokafka import TopicPartition

from agentstream.consumers.kafka import Consumer, log_consumer, to_record
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from tests.support.waiting import patience

Names = Callable[[Record], Hashable | None]
"""What a record is to be known by; None: it is passed over."""


class Seen:
    """Reads on, and notes when each name was seen first. Made by `seeing`."""

    def __init__(self, names: Names) -> None:
        self.at: dict[Hashable, float] = {}
        self._names = names
        self._changed = asyncio.Condition()

    async def read(self, consumer: Consumer) -> None:
        """For ever."""
        while True:
            batches = await consumer.getmany(timeout_ms=1000)
            now = time.time()
            async with self._changed:
                for record in (to_record(raw) for records in batches.values() for raw in records):
                    if (name := self._names(record)) is not None:
                        self.at.setdefault(name, now)
                self._changed.notify_all()

    async def until(self, name: Hashable) -> float:
        """Wait until this name was seen."""
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: name in self.at)
        return self.at[name]

    async def until_count(self, count: int) -> None:
        """Wait until so many names were seen."""
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: len(self.at) >= count)


@asynccontextmanager
async def seeing(connection: KafkaConnection, topic: str, names: Names, *, partitions: int = 1) -> AsyncIterator[Seen]:
    """A read_committed reader of a topic, from its beginning."""
    seen = Seen(names)
    async with log_consumer(connection) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        reading = asyncio.create_task(seen.read(consumer), name="reader")
        try:
            yield seen
        finally:
            reading.cancel()
            await asyncio.wait({reading})


def key_of(record: Record) -> Hashable | None:
    """A record's key."""
    return record.key
