"""Everything that the topics still hold of one run: its request, attempts, events, result, dead letter.

    RunReader(...).read(run_id) -> RunHistory

Where it is comes from `whereabouts`; the rest is read at the positions found there. Nothing is asked of any worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agentstream.consumers.attempt_history import AttemptHistory, EventsOfRun
from agentstream.consumers.log_scan import LogScan
from agentstream.consumers.whereabouts import Search, Whereabouts
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Rejection, decode_request
from agentstream.schemas.dead_letters import DeadLetter, decode_dead_letter
from agentstream.schemas.headers import last_wins
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position, Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

SLACK_MS: Final = 60_000
"""Between the clocks of a caller and a worker; and a zombie may write that long after a run has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """A run as the topics tell it. What is None is not there, or not there any more: `notes` say so."""

    where: Whereabouts
    """Where it is."""
    request: InvokeRequest | Rejection | None = None
    """Its request, or why that is none."""
    requested: Record | None = None
    """The request's record."""
    attempts: tuple[AttemptHistory, ...] = ()
    """Its attempts, in the order in which they came to be."""
    messages: tuple[Message, ...] = ()
    """What the attempt that counts has written so far, by its events."""
    result: InvokeResult | None = None
    """Its result."""
    dead_letter: DeadLetter | None = None
    """Its dead letter."""
    notes: tuple[str, ...] = ()
    """What limits this answer."""

    @property
    def trace_id(self) -> str | None:
        """Its trace, 32 hex digits."""
        if self.result is not None and self.result.trace_id is not None:
            return self.result.trace_id
        trace = None if self.requested is None else TraceContext.parse(last_wins(self.requested.headers))
        return None if trace is None else trace.trace_id


class RunReader:
    """Reads what there is. Raises as `Search`."""

    def __init__(
        self, connection: KafkaConnection, topics: Topics, group_id: str, *, last: int, progress: Callable[[str], None]
    ) -> None:
        """`last`: of each partition of a topic so many records are looked at, at most."""
        self._connection = connection
        self._topics = topics
        self._search = Search(connection, topics, group_id, last=last, progress=progress)
        self._last = last
        self._progress = progress

    async def read(self, run_id: str) -> RunHistory:
        """What the topics hold of the run."""
        where = await self._search.find(run_id)
        found, notes = RunHistory(where=where), [*where.notes]
        if where.request is not None:
            requested = await self._at(where.request)
            found = replace(
                found, requested=requested, request=None if requested is None else decode_request(requested)
            )
            if requested is None:
                notes.append(f"its request is no longer on the log: retention took {where.request}")
        if where.result is not None:
            try:
                found = replace(found, result=await self._search.result_at(where.result))
            except LookupError as error:
                notes.append(str(error))
        if where.dead_letter is not None and (record := await self._at(where.dead_letter)) is not None:
            letter = decode_dead_letter(record)
            found = replace(found, dead_letter=letter if isinstance(letter, DeadLetter) else None)
        found = await self._with_events(found, notes)
        return replace(found, notes=tuple(notes))

    async def _at(self, position: Position) -> Record | None:
        async with self._scan(position.topic) as scan:
            start = {position.partition: position.offset}
            # The first one there is: behind what has expired lies the log's new beginning.
            record, _ = await scan.first(start, lambda each: each.position.offset >= position.offset)
        return record if record is not None and record.position == position else None

    def _scan(self, topic: str, *, committed: bool = True) -> LogScan:
        unbounded = 2**62
        return LogScan(self._connection, topic, last=unbounded, progress=self._progress, committed=committed)

    async def _with_events(self, found: RunHistory, notes: list[str]) -> RunHistory:
        since, partition = _since(found), _partition(found)
        if since is None or partition is None:
            if found.where.state != "unknown":
                notes.append("its events are not looked for: neither its request nor its result says when it ran")
            return found
        until = None if found.result is None else _ms(found.result.ended_at) + SLACK_MS
        events, looked = EventsOfRun(found.where.run_id), 0

        def seen(record: Record) -> bool:
            nonlocal looked
            looked += 1
            events.take(record)
            return looked >= self._last or (until is not None and record.timestamp_ms > until)

        async with self._scan(self._topics.stream_deltas, committed=False) as scan:
            await scan.run(await scan.since(since - SLACK_MS, partition), seen)
        if looked >= self._last:
            notes.append(f"only {looked} delta records since its request were looked at (--last)")
        notes += events.notes(found.result)
        return replace(found, attempts=events.settled(found.result), messages=events.transcript.messages())


def _since(found: RunHistory) -> int | None:
    if found.requested is not None:
        return found.requested.timestamp_ms
    if found.result is not None and found.result.requested_at is not None:
        return _ms(found.result.requested_at)
    return None


def _partition(found: RunHistory) -> int | None:
    where = found.where.request or found.where.result
    return None if where is None else where.partition


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
