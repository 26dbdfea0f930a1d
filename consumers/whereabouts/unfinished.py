"""The requests that are not finished: which the committed offsets leave open, and how far a run of one has come."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentstream.consumers.coordinator import NO_OFFSET, CommittedOffset, CoordinatorError, GroupCoordinator
from agentstream.consumers.metadata import CommitState, UnreadableMetadata, decode
from agentstream.consumers.whereabouts.answer import Whereabouts
from agentstream.consumers.whereabouts.look import Look
from agentstream.schemas.codec import Rejection, decode_events, decode_request
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.records import Position, Record

COORDINATOR_SECONDS = 15.0
States = Mapping[int, CommitState | None]
"""By partition; None where nothing is committed, or nothing that this version can read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRequest:
    """A request that the committed offsets do not lie beyond."""

    position: Position
    """Where it lies."""
    session_id: str
    """Its session."""
    timestamp_ms: int
    """When it was written."""
    before: tuple[str, ...]
    """The open requests of its session before it, in its partition."""
    state: CommitState | None
    """What is committed of its partition."""

    @property
    def unfinished(self) -> bool:
        """Whether it is open, or no worker has seen it."""
        return _is_open(self.state, self.position.offset)


async def committed_states(look: Look, group_id: str) -> States:
    """What the group has committed."""
    states: dict[int, CommitState | None] = {}
    async with GroupCoordinator(look.connection, group_id) as coordinator:
        for partition in range(await coordinator.partition_count(look.topics.invoke_requests)):
            answer = await _answered(coordinator, look.topics.invoke_requests, partition)
            try:
                known = answer.offset != NO_OFFSET
                states[partition] = decode(answer.offset, answer.metadata) if known else None
            except UnreadableMetadata as error:
                states[partition] = None
                look.notes.append(f"partition {partition}: {error}")
    return states


async def _answered(coordinator: GroupCoordinator, topic: str, partition: int) -> CommittedOffset:
    """A coordinator that is only being chosen, or loads, is asked again: on a new cluster for some seconds."""
    until = asyncio.get_running_loop().time() + COORDINATOR_SECONDS
    while True:
        try:
            return await coordinator.committed(topic, partition)
        except CoordinatorError as error:
            if "AuthorizationFailed" in str(error) or asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(0.2)


async def find_request(look: Look, run_id: str, states: States) -> FoundRequest | None:
    """The run's request, if it is not behind the committed offsets, with the open ones of its session before it."""
    lanes: dict[tuple[int, str], list[str]] = {}
    found: list[FoundRequest] = []

    def seen(record: Record) -> bool:
        where, request = record.position, decode_request(record)
        if isinstance(request, Rejection):
            name, session = request.run_id or request.fallback_id, request.session_id
        else:
            name, session = request.id or "", request.session_id or ""
        lane = lanes.setdefault((where.partition, session), [])
        state = states.get(where.partition)
        if name == run_id:
            found.append(
                FoundRequest(
                    position=where,
                    session_id=session,
                    timestamp_ms=record.timestamp_ms,
                    before=tuple(lane),
                    state=state,
                )
            )
            return True
        if _is_open(state, where.offset):
            lane.append(name)
        return False

    async with look.scan(look.topics.invoke_requests) as scan:
        begins = await scan.beginnings()
        start = {number: begins[number] if state is None else state.offset for number, state in states.items()}
        scanned = await scan.run(start, seen) if start else None
    if scanned is not None and not found and not scanned.whole:
        look.notes.append(f"only the last {look.last} of the unfinished requests of a partition were looked at")
    return found[0] if found else None


def _is_open(state: CommitState | None, offset: int) -> bool:
    return state is None or offset >= state.next_offset or offset in state.open


async def whereabouts_of(look: Look, run_id: str, request: FoundRequest) -> Whereabouts:
    """How far an unfinished request has come."""
    where, state = request.position, request.state
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
        look.notes.append("its worker gave the partition back: the next one begins the run again")
    newest = await _newest_events(look, run_id, request)
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


async def _newest_events(look: Look, run_id: str, request: FoundRequest) -> StreamEvents | None:
    newest: list[StreamEvents] = []

    def seen(record: Record) -> bool:
        if header_text(last_wins(record.headers), CE_SUBJECT) == run_id:
            events = decode_events(record)
            if not isinstance(events, Problem) and (not newest or _order(events) >= _order(newest[0])):
                newest[:] = [events]
        return False

    partition = request.position.partition
    async with look.scan(look.topics.stream_deltas, committed=False) as scan:
        await scan.run(await scan.since(request.timestamp_ms, partition), seen)
    return newest[0] if newest else None


def _order(events: StreamEvents) -> tuple[int, int, int]:
    return events.claim, events.attempt, events.first_seq
