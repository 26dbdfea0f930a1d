"""A stretch of a topic, oldest record first over all its partitions.

Kafka keeps an order in each partition alone, and hands out whole partitions: the first record that came was one of an
arbitrary partition, and `--max 1` showed one of yesterday while there were some of last week.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.schemas.records import Record

POLL_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 15.0
"""A partition that gives nothing for so long (its broker is away, it cannot be read) is not waited for."""


async def by_time(
    tail: Tail, start: Mapping[int, int], ends: Mapping[int, int]
) -> AsyncGenerator[Record | Expired, None]:
    """From these offsets to those, by the records' timestamps; those of one partition in their order on the log.

    `tail` is open, and closed by whoever opened it. Of each partition at most what one fetch brought is held.
    """
    heads = {number: deque[Record]() for number, end in ends.items() if start[number] < end}
    tail.seek({number: start[number] for number in heads})
    now = asyncio.get_running_loop().time
    lacking_since: dict[int, float] = {}
    while heads:
        lacking = [number for number, found in heads.items() if not found]
        lacking_since = {number: lacking_since.get(number, now()) for number in lacking}
        if lacking:
            tail.pause()
            tail.resume(lacking)
            for item in await tail.poll(0.0 if _given_up(lacking_since, now()) else POLL_SECONDS):
                if isinstance(item, Expired):
                    yield item
                elif item.position.offset < ends[item.position.partition]:
                    heads[item.position.partition].append(item)
                    lacking_since.pop(item.position.partition, None)
            reached = await tail.reached()
            for number in lacking:
                # The last thing on a transactional topic is a marker, which is no record.
                if not heads[number] and reached[number] >= ends[number]:
                    del heads[number], lacking_since[number]
        there = {number: found[0] for number, found in heads.items() if found}
        if there and _given_up(lacking_since, now()):
            oldest = min(there, key=lambda number: (there[number].timestamp_ms, number))
            yield heads[oldest].popleft()


def _given_up(lacking_since: Mapping[int, float], now: float) -> bool:
    """Whether all partitions of which nothing is there have been waited for long enough, if there are any."""
    return all(now - since > SILENT_SECONDS for since in lacking_since.values())
