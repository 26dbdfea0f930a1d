"""Runs that have just ended, as a group that only looks on sees them: their results, and the requests these name."""

import logging
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from agentstream.consumers.kafka import Consumer, follower, tail_consumer, to_record
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Delivery, decode_delivery, decode_result
from agentstream.schemas.headers import REQUEST, header_text, last_wins
from agentstream.schemas.recordings import SourceRecord
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

log = logging.getLogger(__name__)

_LOOKS: Final = 60
"""Polls for a request, half a second each: a broker that restarts is back long before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRun:
    """A run with a result."""

    request: InvokeRequest
    """What was asked, with its ids."""
    source: SourceRecord
    """Where that lay."""
    result: InvokeResult
    """What came of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What came at once."""

    runs: tuple[EndedRun, ...] = ()
    """Those that are meant."""
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    """What to commit once they are done with."""


@dataclass(kw_only=True, slots=True)
class Passed:
    """Results that were seen and not taken."""

    not_drawn: int = 0
    """Of sessions that the sample leaves out."""
    cancelled: int = 0
    """Of runs that were cancelled: there is no answer to hold another one against."""
    without_request: int = 0
    """Whose request cannot be found or read: it expired, or never was one."""


class EndedRuns:
    """Follows one cluster's results. `async with` joins and leaves the group; one task may use it."""

    def __init__(self, connection: KafkaConnection, topics: Topics, group_id: str, selection: Selection) -> None:
        """`group_id` must be no worker's. Of the selection sample and seed count. `async with` raises KafkaError."""
        self._consumer: Consumer = follower(connection, group_id, topics.assistant_messages)
        self._requests = Tail(lambda: tail_consumer(connection, read_committed=True), topics.invoke_requests)
        self._topics = topics
        self._selection = selection
        self._held: set[TopicPartition] = set()
        self.passed = Passed()

    async def __aenter__(self) -> Self:
        await self._requests.open(also=[self._topics.assistant_messages])
        try:
            await self._consumer.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._consumer.__aexit__(kind, error, trace)
        finally:
            await self._requests.close()

    @property
    def partitions(self) -> int:
        """How many partitions this member follows, from where is committed."""
        return len(self._held)

    async def next(self, seconds: float, most: int) -> Round:
        """At most so many results, maybe none after `seconds`. Raises KafkaError."""
        batches = await self._consumer.getmany(timeout_ms=int(seconds * 1000), max_records=most)
        while self._consumer.unreadable:
            where, found = self._consumer.unreadable.popitem()
            log.error("%s/%d cannot be read from %d on: %s", where.topic, where.partition, *found.told)
            self._consumer.pause(where)
        positions = {where: batch[-1].offset + 1 for where, batch in batches.items()}
        await self._begin({where: batch[0].offset for where, batch in batches.items()})
        ended = [await self._run(to_record(raw)) for batch in batches.values() for raw in batch]
        return Round(runs=tuple(run for run in ended if run is not None), positions=positions)

    async def commit(self, positions: dict[TopicPartition, int]) -> None:
        """What stands before these is done with. Where the group gave a partition away, its runs come once more."""
        try:
            if positions:
                await self._consumer.commit(positions)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("the group has moved on, some runs come once more: %r", error)

    async def _begin(self, firsts: dict[TopicPartition, int]) -> None:
        """Commit where following begins: killed before its first run is done, a shadow would begin at another end."""
        assigned: set[TopicPartition] = set(self._consumer.assignment())
        new = assigned - self._held
        try:
            begins = {
                where: firsts[where] if where in firsts else await self._consumer.position(where) for where in new
            }
        except IllegalStateError:
            return  # the group gave it away meanwhile
        await self.commit(begins)
        self._held = assigned

    async def _run(self, record: Record) -> EndedRun | None:
        result = decode_result(record)
        if not isinstance(result, InvokeResult):
            self.passed.without_request += 1
        elif not self._selection.draws(result.session_id):
            self.passed.not_drawn += 1
        elif result.status == "cancelled":
            self.passed.cancelled += 1
        else:
            found = await self._request_of(record)
            request = None if found is None else decode_delivery(found)
            if found is not None and isinstance(request, Delivery) and request.request.id == result.run_id:
                where = found.position
                source = SourceRecord(
                    topic=where.topic, partition=where.partition, offset=where.offset, timestamp_ms=found.timestamp_ms
                )
                return EndedRun(request=request.request, source=source, result=result)
            self.passed.without_request += 1
        return None

    async def _request_of(self, record: Record) -> Record | None:
        """The record that a result names; None where it is no longer there."""
        named = (header_text(last_wins(record.headers), REQUEST) or "").rsplit("/", 2)
        if len(named) < 3 or named[0] != self._topics.invoke_requests or not all(map(str.isdecimal, named[1:])):
            return None
        partition, wanted = int(named[1]), int(named[2])
        # One partition at a time: the positions of earlier ones would be read on from, for nothing.
        self._requests.positions.clear()
        self._requests.seek({partition: wanted})
        self._requests.resume()
        try:
            for _ in range(_LOOKS):
                for item in await self._requests.poll(0.5):
                    if isinstance(item, Expired):
                        return None
                    if item.position.partition == partition and item.position.offset >= wanted:
                        return item if item.position.offset == wanted else None
        finally:
            self._requests.pause()
        raise TimeoutError(f"{named[0]}/{partition} gave nothing from {wanted} on")
