"""A stretch of a topic, from offsets to offsets, in batches that say how far they lead."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record

POLL_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 60.0
"""Without any progress for so long the brokers are taken to be away: what was read is kept, and can be gone on with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What came at once: at most what one fetch brings."""

    records: list[Record]
    """Records within the stretch."""
    positions: Mapping[int, int]
    """Where to go on behind them, by partition."""
    expired: int
    """Offsets that retention took away before they were read."""


class Stretch:
    """One topic, to be read once. Opened and closed by `async with`.

    Everything raises TopicMissing, aiokafka's KafkaError, OSError or TimeoutError.
    """

    def __init__(self, connection: KafkaConnection, topic: str, *, committed: bool) -> None:
        """`committed`: whether records of open and aborted transactions stay unseen."""
        self.topic = topic
        self._tail = Tail(lambda: tail_consumer(connection, read_committed=committed), topic)

    async def __aenter__(self) -> Self:
        await self._tail.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tail.close()

    async def partitions(self) -> tuple[int, ...]:
        """The topic's partitions."""
        return await self._tail.partitions()

    async def beginnings(self, partitions: Iterable[int]) -> dict[int, int]:
        """The lowest offsets there are."""
        return await self._tail.beginnings(partitions)

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offsets behind the last records there are."""
        return await self._tail.ends(partitions)

    async def since(self, instants: Mapping[int, int]) -> dict[int, int]:
        """By partition, the offset of the first record at or after a time in ms; absent where there is none."""
        found: dict[int, int] = {}
        for partition, instant in instants.items():
            found |= await self._tail.first_since(max(0, instant), [partition])
        return found

    async def batches(self, positions: Mapping[int, int], ends: Mapping[int, int]) -> AsyncIterator[Batch]:
        """Everything from the positions up to the ends."""
        now = asyncio.get_running_loop().time
        moved, reached = now(), dict(positions)
        self._tail.seek({number: offset for number, offset in positions.items() if offset < ends[number]})
        self._tail.resume()
        while any(offset < ends[number] for number, offset in reached.items()):
            found = await self._tail.poll(POLL_SECONDS)
            expired = sum(item.resumed_at - item.expected for item in found if isinstance(item, Expired))
            records = [
                item
                for item in found
                if isinstance(item, Record) and item.position.offset < ends[item.position.partition]
            ]
            before = dict(reached)
            # The consumer passes markers and aborted records too, which are none for us.
            reached |= {number: min(offset, ends[number]) for number, offset in (await self._tail.reached()).items()}
            if found or reached != before:
                moved = now()
                yield Batch(records=records, positions=dict(reached), expired=max(0, expired))
            elif now() - moved > SILENT_SECONDS:
                raise TimeoutError(f"{self.topic} gave nothing for {SILENT_SECONDS:g} s")
