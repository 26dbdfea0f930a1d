"""A bounded look at a stretch of a topic: from given offsets, or its newest records, to the end as it is now."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record

POLL_SECONDS = 0.5
TOLD_EVERY_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""Without any progress for so long the brokers are taken to be away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """What was looked at."""

    records: int
    """Records read."""
    whole: bool
    """Whether nothing that is still on the log, from where it was asked to start, was left out."""
    ends: Mapping[int, int]
    """The end of each partition as it was."""


class LogScan:
    """One topic, for one look after the other. Opened and closed by `async with`.

    Entering raises TopicMissing, aiokafka's KafkaError, OSError or TimeoutError, and so does everything else.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str, *, last: int, progress: Callable[[str], None], committed: bool
    ) -> None:
        """`last` bounds what is read of each partition; `progress` is given a line every two seconds."""
        self._tail = Tail(lambda: tail_consumer(connection, read_committed=committed), topic)
        self._topic = topic
        self._last = last
        self._progress = progress

    async def __aenter__(self) -> "LogScan":
        await self._tail.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tail.close()

    async def partitions(self) -> tuple[int, ...]:
        """The topic's partitions."""
        return await self._tail.partitions()

    async def beginnings(self) -> dict[int, int]:
        """The first offset of each partition that is still on the log."""
        return await self._tail.beginnings(await self.partitions())

    async def ends(self) -> dict[int, int]:
        """The end of each partition as it is now."""
        return await self._tail.ends(await self.partitions())

    async def since(self, timestamp_ms: int, partition: int) -> dict[int, int]:
        """Where to start in a partition so as to see what was written from this instant on."""
        found = await self._tail.first_since(max(timestamp_ms, 0), [partition])
        return found or await self._tail.ends([partition])

    async def run(self, start: Mapping[int, int] | None, seen: Callable[[Record], bool]) -> Scanned:
        """Give `seen` each record until it says True or the end is reached. `start` by partition; None: all of them."""
        ends = await self._tail.ends(start if start is not None else await self.partitions())
        begins = await self._tail.beginnings(ends)
        wanted = {number: max(begins[number], 0 if start is None else start[number]) for number in ends}
        first = {number: max(offset, ends[number] - self._last) for number, offset in wanted.items()}
        self._tail.positions.clear()
        self._tail.seek(first)
        self._tail.resume()
        try:
            count = await self._read(first, ends, seen)
        finally:
            self._tail.pause()
        return Scanned(records=count, whole=first == wanted, ends=ends)

    async def first(
        self, start: Mapping[int, int] | None, is_it: Callable[[Record], bool]
    ) -> tuple[Record | None, Scanned]:
        """The first record that is it, and what was looked at."""
        found: list[Record] = []

        def seen(record: Record) -> bool:
            if is_it(record):
                found.append(record)
            return bool(found)

        scanned = await self.run(start, seen)
        return (found[0] if found else None), scanned

    async def _read(self, first: Mapping[int, int], ends: Mapping[int, int], seen: Callable[[Record], bool]) -> int:
        now = asyncio.get_running_loop().time
        count, told, moved, total = 0, now(), now(), sum(ends[number] - first[number] for number in ends)
        while any([position < ends[number] for number, position in (await self._tail.reached()).items()]):  # noqa: C419
            found = await self._tail.poll(POLL_SECONDS)
            for item in found:
                if isinstance(item, Expired):
                    continue
                count += 1
                if item.position.offset < ends[item.position.partition] and seen(item):
                    return count
            if found:
                moved = now()
            elif now() - moved > SILENT_SECONDS:
                raise TimeoutError(f"{self._topic} gave nothing for {SILENT_SECONDS:g} s")
            if now() - told > TOLD_EVERY_SECONDS:
                told = now()
                self._progress(f"{self._topic}: {count} of at most {total} records read")
        return count
