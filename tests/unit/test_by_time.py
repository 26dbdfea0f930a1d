"""Records of a topic by their time, over all partitions."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.by_time import SILENT_SECONDS, by_time
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Position, Record
from tests.virtual_time import in_virtual_time

FETCHED = 2


class Scripted(Tail):
    """Gives what each partition that is read has next, two at once; the silent ones give nothing."""

    def __init__(self, times: Mapping[int, list[int]], silent: Iterable[int] = ()) -> None:
        connection = KafkaConnection(bootstrap_servers="nobody:1")
        super().__init__(lambda: tail_consumer(connection, read_committed=True), "t")
        self._times = times
        self._silent = set(silent)
        self._reading: list[int] = []
        self.polls: list[list[int]] = []

    def pause(self) -> None:
        self._reading = []

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        self._reading = list(self.positions if partitions is None else partitions)

    async def poll(self, seconds: float) -> list[Record | Expired]:
        self.polls.append(self._reading)
        found: list[Record | Expired] = []
        for number in set(self._reading) - self._silent:
            given = list(enumerate(self._times[number]))[self.positions[number] :][:FETCHED]
            for offset, time in given:
                where = Position(topic="t", partition=number, offset=offset)
                found.append(Record(position=where, timestamp_ms=time, key=None, value=None))
            # Behind the last one stands a transaction's marker.
            self.positions[number] += len(given) if len(given) == FETCHED else len(given) + 1
        if not found:
            await asyncio.sleep(seconds)
        return found

    async def reached(self) -> dict[int, int]:
        return self.positions


def read(tail: Scripted, ends: Mapping[int, int]) -> list[tuple[int, float]]:
    """The records' times, each with the second at which it came."""

    async def scene() -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = []
        async with aclosing(by_time(tail, dict.fromkeys(ends, 0), ends)) as records:
            async for each in records:
                assert isinstance(each, Record)
                found.append((each.timestamp_ms, asyncio.get_running_loop().time()))
                if len(found) == sum(map(len, tail._times.values())):
                    break
        return found

    return in_virtual_time(scene())


def test_a_partition_keeps_its_order_although_its_clock_was_set_back() -> None:
    tail = Scripted({0: [5, 2, 9], 1: [3, 7]})
    assert [time for time, _ in read(tail, {0: 4, 1: 3})] == [3, 5, 2, 7, 9]


def test_only_partitions_of_which_nothing_is_held_are_read_on() -> None:
    tail = Scripted({0: [1, 2, 3], 1: [4], 2: []})
    read(tail, {0: 4, 1: 2, 2: 1})
    assert tail.polls == [[0, 1, 2], [0], [0]][: len(tail.polls)]
    assert len(tail.polls) > 1


def test_a_partition_that_gives_nothing_does_not_hold_back_the_others_for_ever() -> None:
    found = read(Scripted({0: [1, 4, 6, 7, 8], 1: [2, 3, 5]}, silent=[2]), {0: 6, 1: 4, 2: 1})
    assert [time for time, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    first, *others = [second for _, second in found]
    assert SILENT_SECONDS < first <= SILENT_SECONDS + 1
    assert max(others) <= first + 1, "it is waited for once, not before each of them"
