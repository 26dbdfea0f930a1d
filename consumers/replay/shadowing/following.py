"""Runs that have just ended, as a group that only looks on sees them: their results, and the requests these name."""

import asyncio
import logging
import math
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, OffsetOutOfRangeError

from agentstream.consumers.coordinator import NO_OFFSET, CoordinatorError, GroupCoordinator
from agentstream.consumers.kafka import Consumer, follower, to_record
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.shadowing.requests import Requests
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Delivery, decode_delivery, decode_result
from agentstream.schemas.headers import REQUEST, header_text, last_wins
from agentstream.schemas.recordings import SourceRecord
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

log = logging.getLogger(__name__)


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
    """Results that were not taken."""

    not_drawn: int = 0
    """Of sessions that the sample leaves out."""
    cancelled: int = 0
    """Of runs that were cancelled: there is no answer to hold another one against."""
    without_request: int = 0
    """Whose request cannot be found or read: it expired, or never was one."""
    too_old: int = 0
    """That came by later than the bound on the lag allows."""
    expired: int = 0
    """Offsets that retention took away before they were read; some of them may have held no result."""


class EndedRuns(ConsumerRebalanceListener):  # type: ignore[misc]
    """Follows one cluster's results. `async with` joins and leaves the group; one task may use it."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Topics,
        group_id: str,
        selection: Selection,
        *,
        max_lag: float = math.inf,
    ) -> None:
        """`group_id` must be no worker's. Of the selection sample and seed count; results older than `max_lag`
        seconds, by their timestamps, are passed over. `async with` raises KafkaError.
        """
        self._consumer: Consumer = follower(connection, group_id)
        self._coordinator = GroupCoordinator(connection, group_id)
        self._requests = Requests(connection, topics)
        self._topics = topics
        self._selection = selection
        self._max_lag = max_lag
        self._new: set[TopicPartition] = set()
        self._stack = AsyncExitStack()
        self.passed = Passed()
        self.behind = 0.0
        """Seconds that the oldest result of the last round had waited; 0 after a round without any."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._requests)
            await stack.enter_async_context(self._coordinator)
            stack.push_async_exit(self._consumer)
            await self._consumer.start()
            self._consumer.subscribe([self._topics.assistant_messages], listener=self)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing is held up: what is under way is committed if the group still allows it."""

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hold them all until `next` knows where to begin: with a position of some kind, aiokafka looks up none."""
        if assigned:
            self._consumer.pause(*assigned)
        for where in assigned:
            self._consumer.seek(where, 0)
        self._new = set(assigned)

    @property
    def partitions(self) -> int:
        """How many partitions this member follows, from where is committed."""
        return len(self._consumer.assignment() - self._new)

    async def next(self, seconds: float, most: int) -> Round:
        """At most so many results, maybe none after `seconds`. Raises KafkaError, TimeoutError."""
        await self._begin()
        try:
            batches = await self._consumer.getmany(timeout_ms=int(seconds * 1000), max_records=most)
        except OffsetOutOfRangeError as error:
            await self._skip_expired(error)
            return Round()
        while self._consumer.unreadable:
            where, found = self._consumer.unreadable.popitem()
            log.error("%s/%d cannot be read from %d on: %s", where.topic, where.partition, *found.told)
            self._consumer.pause(where)
        positions = {where: batch[-1].offset + 1 for where, batch in batches.items()}
        records = [to_record(raw) for batch in batches.values() for raw in batch]
        now_ms = time.time_ns() // 1_000_000
        self.behind = max([0.0, *((now_ms - record.timestamp_ms) / 1000 for record in records)])
        ended = [await self._run(record, now_ms) for record in records]
        return Round(runs=tuple(run for run in ended if run is not None), positions=positions)

    async def commit(self, positions: dict[TopicPartition, int]) -> None:
        """What stands before these is done with. Where the group does not take it, its runs come once more."""
        try:
            if positions:
                await self._consumer.commit(positions)
        except KafkaError as error:
            if not (error.retriable or isinstance(error, CommitFailedError | IllegalStateError)):
                raise
            log.warning("the group did not take what was committed: %r", error)

    async def _begin(self) -> None:
        """Go on where the group stands; a group without an offset begins at the end, and that is committed at once.

        Killed before its first run is done, a shadow would begin at another end. The coordinator is asked by ourselves:
        to aiokafka one that is still loading has no offsets, and the shadow would pass over what it had not played.
        """
        while self._new:
            where = next(iter(self._new))
            try:
                offset = (await self._coordinator.committed(where.topic, where.partition)).offset
                if offset == NO_OFFSET:
                    offset = (await self._consumer.end_offsets([where]))[where]
                    await self.commit({where: offset})
                self._consumer.seek(where, offset)
                self._consumer.resume(where)
            except IllegalStateError:
                log.info("%s/%d went to another member", where.topic, where.partition)
            except CoordinatorError as error:
                log.warning("asking once more where to begin: %s", error)
                await asyncio.sleep(0.2)
                return
            self._new.discard(where)

    async def _skip_expired(self, error: OffsetOutOfRangeError) -> None:
        """Retention overtook it, or the topic was made anew: go on with the first result that is there."""
        for where, offset in error.args[0].items():
            begin = (await self._consumer.beginning_offsets([where]))[where]
            self.passed.expired += max(0, begin - offset)
            try:
                self._consumer.seek(where, begin)
            except IllegalStateError:
                log.info("%s/%d went to another member", where.topic, where.partition)

    async def _run(self, record: Record, now_ms: int) -> EndedRun | None:
        result = decode_result(record)
        if not isinstance(result, InvokeResult):
            self.passed.without_request += 1
        elif not self._selection.draws(result.session_id):
            self.passed.not_drawn += 1
        elif result.status == "cancelled":
            self.passed.cancelled += 1
        elif now_ms - record.timestamp_ms > self._max_lag * 1000:
            self.passed.too_old += 1
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
        return await self._requests.find(int(named[1]), int(named[2]))
