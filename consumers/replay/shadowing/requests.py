"""The requests that results name, looked up one by one, with little read for it."""

from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics

FETCH_BYTES: Final = 32 * 1024
"""Of one look-up; a larger record still comes, alone. With the usual 1 MiB the brokers sent 2,000 requests for one."""
KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of requests that came along: runs end about in the order in which they were asked."""
_LOOKS: Final = 60
"""Polls for a request, half a second each: a broker that restarts is back long before."""


class Requests:
    """Finds requests by their place. `async with` opens and closes it; one task may use it."""

    def __init__(self, connection: KafkaConnection, topics: Topics) -> None:
        self._topic = topics.invoke_requests
        self._results = topics.assistant_messages
        self._tail = Tail(
            lambda: tail_consumer(connection, read_committed=True, fetch_bytes=FETCH_BYTES), topics.invoke_requests
        )
        self._kept: OrderedDict[tuple[int, int], Record] = OrderedDict()
        self._kept_bytes = 0

    async def __aenter__(self) -> Self:
        await self._tail.open(also=[self._results])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tail.close()

    async def find(self, partition: int, offset: int) -> Record | None:
        """The record that lies there; None where it is no longer there. Raises KafkaError, TimeoutError."""
        if (partition, offset) in self._kept:
            return self._taken(partition, offset)
        # One partition at a time: the positions of earlier ones would be read on from, for nothing.
        self._tail.positions.clear()
        self._tail.seek({partition: offset})
        self._tail.resume()
        try:
            for _ in range(_LOOKS):
                items = await self._tail.poll(0.5)
                if any(isinstance(item, Expired) for item in items):
                    return None
                came = [item for item in items if isinstance(item, Record) and item.position.partition == partition]
                self._keep([item for item in came if item.position.offset >= offset])
                if any(item.position.offset >= offset for item in came):
                    return self._taken(partition, offset)
        finally:
            self._tail.pause()
        raise TimeoutError(f"{self._topic}/{partition} gave nothing from {offset} on")

    def _keep(self, records: list[Record]) -> None:
        for record in records:
            place = (record.position.partition, record.position.offset)
            if place not in self._kept:
                self._kept[place] = record
                self._kept_bytes += _size(record)

    def _taken(self, partition: int, offset: int) -> Record | None:
        found = self._kept.pop((partition, offset), None)
        if found is not None:
            self._kept_bytes -= _size(found)
        while self._kept_bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _size(oldest)
        return found


def _size(record: Record) -> int:
    return len(record.value or b"") + sum(len(value) for _, value in record.headers)
