"""Where a run is, as the topics and the group's committed offsets tell: no worker is asked.

    Search(...).find(run_id) -> Whereabouts

The committed offset of each partition and its metadata say which requests are open and which of them were started;
the requests behind it say which run that is; the deltas say how far it came. What is finished has a line in the index.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from agentstream.consumers.coordinator import NO_OFFSET, CommittedOffset, CoordinatorError, GroupCoordinator
from agentstream.consumers.log_scan import LogScan
from agentstream.consumers.metadata import CommitState, UnreadableMetadata, decode
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Rejection, decode_events, decode_request, decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import CE_SUBJECT, REQUEST, header_text, last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import FinishedRun, InvokeResult
from agentstream.schemas.topics import Topics

State = Literal["unread", "waiting", "running", "finished", "refused", "unknown"]
COORDINATOR_SECONDS = 15.0
SLACK_MS = 120_000
"""A result and its line of the index are written within one transaction: at most so far apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Whereabouts:
    """What is known of a run."""

    run_id: str
    """The run."""
    state: State
    """unread: no worker has seen it; waiting or running: one has; refused: a dead letter is all that came of it;
    unknown: it is not on the log."""
    session_id: str | None = None
    """Its session."""
    request: Position | None = None
    """Where its request lies."""
    result: Position | None = None
    """Where its result lies."""
    status: str | None = None
    """How it ended."""
    ahead: int | None = None
    """Open requests of its session before it, in its partition."""
    behind: str | None = None
    """The run directly before it in its session."""
    claim: int | None = None
    """The claim under which its partition is worked on, or it ran."""
    owner: str | None = None
    """The id of that claim's owner: one per assignment of a partition to a worker, as in the worker's log."""
    attempt: int | None = None
    """The attempt that its newest events belong to."""
    last_event: str | None = None
    """Its newest event."""
    last_event_at: datetime | None = None
    """When that happened."""
    dead_letter: Position | None = None
    """Where its dead letter lies."""
    error: str | None = None
    """The code it was refused with."""
    notes: tuple[str, ...] = ()
    """What limits this answer."""


@dataclass(slots=True)
class _Request:
    position: Position
    session_id: str
    timestamp_ms: int
    before: list[str] = field(default_factory=list)


class Search:
    """Looks for runs on one set of topics. Raises TopicMissing, CoordinatorError, KafkaError, OSError, TimeoutError."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Topics,
        group_id: str,
        *,
        last: int,
        progress: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`last`: so many records of each partition of a topic are looked at, at most."""
        self._connection = connection
        self._topics = topics
        self._group_id = group_id
        self._last = last
        self._progress = progress
        self._notes: list[str] = []

    async def find(self, run_id: str) -> Whereabouts:
        """Where the run is now."""
        self._notes = []
        states = await self._committed()
        request = await self._request(run_id, states)
        if request is not None:
            state = states[request.position.partition]
            offset = request.position.offset
            if state is None or offset >= state.next_offset or offset in state.open:
                return replace(await self._unfinished(run_id, request, state), notes=tuple(self._notes))
        found = await self._finished(run_id, request)
        return replace(found or Whereabouts(run_id=run_id, state="unknown"), notes=tuple(self._notes))

    async def result_at(self, position: Position) -> InvokeResult:
        """The result that lies there. Raises LookupError if it cannot be read."""
        async with self._scan(position.topic) as scan:
            record, _ = await scan.first({position.partition: position.offset}, lambda each: each.position == position)
        result = None if record is None else decode_result(record)
        if not isinstance(result, InvokeResult):
            raise LookupError(f"the result at {position} cannot be read")
        return result

    def _scan(self, topic: str, *, committed: bool = True) -> LogScan:
        return LogScan(self._connection, topic, last=self._last, progress=self._progress, committed=committed)

    async def _committed(self) -> dict[int, CommitState | None]:
        """By partition; None where nothing is committed, or nothing that this version can read."""
        states: dict[int, CommitState | None] = {}
        async with GroupCoordinator(self._connection, self._group_id) as coordinator:
            for partition in range(await coordinator.partition_count(self._topics.invoke_requests)):
                answer = await self._answered(coordinator, partition)
                try:
                    known = answer.offset != NO_OFFSET
                    states[partition] = decode(answer.offset, answer.metadata) if known else None
                except UnreadableMetadata as error:
                    states[partition] = None
                    self._notes.append(f"partition {partition}: {error}")
        return states

    async def _answered(self, coordinator: GroupCoordinator, partition: int) -> CommittedOffset:
        """A coordinator that is only being chosen, or loads, is asked again: on a new cluster for some seconds."""
        until = asyncio.get_running_loop().time() + COORDINATOR_SECONDS
        while True:
            try:
                return await coordinator.committed(self._topics.invoke_requests, partition)
            except CoordinatorError as error:
                if "AuthorizationFailed" in str(error) or asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(0.2)

    async def _request(self, run_id: str, states: dict[int, CommitState | None]) -> _Request | None:
        """The run's request, if it is not behind the committed offsets, with the open ones of its session before it."""
        lanes: dict[tuple[int, str], list[str]] = {}
        found: list[_Request] = []

        def seen(record: Record) -> bool:
            where, request = record.position, decode_request(record)
            if isinstance(request, Rejection):
                name, session = request.run_id or request.fallback_id, request.session_id
            else:
                name, session = request.id or "", request.session_id or ""
            lane = lanes.setdefault((where.partition, session), [])
            if name == run_id:
                found.append(_Request(where, session, record.timestamp_ms, list(lane)))
                return True
            state = states.get(where.partition)
            if state is None or where.offset >= state.next_offset or where.offset in state.open:
                lane.append(name)
            return False

        async with self._scan(self._topics.invoke_requests) as scan:
            begins = await scan.beginnings()
            start = {number: begins[number] if state is None else state.offset for number, state in states.items()}
            scanned = await scan.run(start, seen) if start else None
        if scanned is not None and not found and not scanned.whole:
            self._notes.append(f"only the last {self._last} of the unfinished requests of a partition were looked at")
        return found[0] if found else None

    async def _unfinished(self, run_id: str, request: _Request, state: CommitState | None) -> Whereabouts:
        where = request.position
        read = state is not None and where.offset in state.open
        started = read and state is not None and state.open[where.offset].started
        found = Whereabouts(
            run_id=run_id,
            state="running" if started else "waiting" if read else "unread",
            session_id=request.session_id,
            request=where,
            ahead=len(request.before),
            behind=request.before[-1] if request.before else None,
            claim=state.claim if read and state is not None else None,
            owner=state.owner if read and state is not None else None,
        )
        if state is not None and state.released:
            self._notes.append("its worker gave the partition back: the next one begins the run again")
        newest = await self._newest_events(run_id, request)
        if newest is None:
            return found
        event = newest.events[-1]
        # Commits lag behind what happens by some 100 ms, deltas do not.
        begun = event.type != "run.queued"
        current = state is None or newest.claim >= state.claim
        return replace(
            found,
            state=("running" if begun else "waiting") if current else found.state,
            claim=newest.claim if current else found.claim,
            attempt=newest.attempt,
            last_event=event.type,
            last_event_at=event.time,
        )

    async def _newest_events(self, run_id: str, request: _Request) -> StreamEvents | None:
        newest: list[StreamEvents] = []

        def seen(record: Record) -> bool:
            if header_text(last_wins(record.headers), CE_SUBJECT) == run_id:
                events = decode_events(record)
                if not isinstance(events, Problem) and (not newest or _order(events) >= _order(newest[0])):
                    newest[:] = [events]
            return False

        partition = request.position.partition
        async with self._scan(self._topics.stream_deltas, committed=False) as scan:
            await scan.run(await scan.since(request.timestamp_ms, partition), seen)
        return newest[0] if newest else None

    async def _finished(self, run_id: str, request: _Request | None) -> Whereabouts | None:
        key = run_id.encode()
        async with self._scan(self._topics.finished_runs) as scan:
            start = None if request is None else await scan.beginnings()
            if start is not None and request is not None:
                start = {request.position.partition: start[request.position.partition]}
            line, scanned = await scan.first(start, lambda record: record.key == key)
        if line is None:
            if not scanned.whole:
                self._notes.append(f"only the last {self._last} finished runs of a partition were looked at (--last)")
            return None
        return await self._ended(run_id, line)

    async def _ended(self, run_id: str, record: Record) -> Whereabouts:
        line = FinishedRun.model_validate_json(record.value or b"")
        partition = record.position.partition
        request = Position(topic=self._topics.invoke_requests, partition=partition, offset=line.offset)
        found = Whereabouts(
            run_id=run_id,
            state="refused" if line.status == "rejected" else "finished",
            session_id=line.session_id or None,
            status=line.status,
            request=request,
        )
        since = record.timestamp_ms - SLACK_MS
        if line.status in ("rejected", "failed"):
            letter = await self._record(
                self._topics.dead_letters,
                partition,
                since,
                lambda each: header_text(last_wins(each.headers), REQUEST) == str(request),
            )
            if letter is not None:
                code = header_text(last_wins(letter.headers), "dlq-error-code")
                found = replace(found, dead_letter=letter.position, error=code)
        return found if line.status == "rejected" else await self._with_result(found, partition, since)

    async def _with_result(self, found: Whereabouts, partition: int, since: int) -> Whereabouts:
        record = await self._record(
            self._topics.assistant_messages,
            partition,
            since,
            lambda each: header_text(last_wins(each.headers), CE_SUBJECT) == found.run_id,
        )
        if record is None:
            self._notes.append("its result is no longer on the log, or lies further back than was looked")
            return found
        found = replace(found, result=record.position)
        result = decode_result(record)
        if isinstance(result, Problem):
            return found
        error = None if result.error is None else str(result.error.code)
        attempt = result.attempt or None
        return replace(found, session_id=result.session_id, claim=result.claim, attempt=attempt, error=error)

    async def _record(self, topic: str, partition: int, since: int, is_it: Callable[[Record], bool]) -> Record | None:
        async with self._scan(topic) as scan:
            found, _ = await scan.first(await scan.since(since, partition), is_it)
        return found


def _order(events: StreamEvents) -> tuple[int, int, int]:
    return events.claim, events.attempt, events.first_seq
