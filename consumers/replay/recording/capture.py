"""From the topics to the spool, in three steps of flat memory: requests, results, events.

Each step has its own topic, and knows from the one before it what to look for: which requests are meant, which of them
were answered by which attempt, which records are of those attempts. The end of a topic is fixed when its step begins,
that of a later step later: a result that was seen has all its events on the log by then.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from agentstream.consumers.replay.recording.manifest import LeftOut, RecordingError, TopicRange
from agentstream.consumers.replay.recording.progress import Progress
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.spool import RequestRow, ResultRow, Spool
from agentstream.consumers.replay.recording.stretch import Batch, Stretch
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Delivery, decode_delivery, decode_events, decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import CE_ID, CE_SUBJECT, REQUEST, header_text, last_wins
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

CLOCKS_MS: Final = 3_600_000
"""A caller's clock stamps the request, a worker's its result: so far apart they may be."""
AROUND_MS: Final = 300_000
"""How far before its attempt began or behind its result an event may stand: one clock stamps them all."""
TOLD_EVERY_SECONDS: Final = 0.2
Take = Callable[[Iterable[Record]], None]
Ranges = Callable[[Stretch], Awaitable[list[TopicRange]]]


class Capture:
    """One capture. `read` raises TopicMissing, aiokafka's KafkaError, OSError or TimeoutError, and can be run again."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Topics,
        selection: Selection,
        spool: Spool,
        *,
        told: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """`told` is given the progress: of each step at once, and then five times a second at most."""
        self._connection = connection
        self._topics = topics
        self._selection = selection
        self._spool = spool
        self._tell_somebody = told
        self._left_out = left_out(spool).model_dump()
        self._order: dict[int, int] = {}
        self._told = ("", 0.0)

    async def read(self) -> None:
        """Read what was not read yet. Raises RecordingError for a partition that does not exist."""
        await self._step("requests", self._topics.invoke_requests, self._where_requests_are, self._requests)
        await self._step("results", self._topics.assistant_messages, self._where_results_are, self._results)
        if self._selection.events:
            await self._step("events", self._topics.stream_deltas, self._where_events_are, self._events)

    async def _step(self, name: str, topic: str, where: Ranges, take: Take) -> None:
        spool = self._spool
        if spool.noted(f"{name}.done"):
            return
        # Deltas never ride in a transaction; somebody else's open one must not hold them back.
        async with Stretch(self._connection, topic, committed=name != "events") as stretch:
            ranges = ranges_of(spool, name)
            if ranges is None:
                ranges = await where(stretch)
                spool.note(f"{name}.ranges", [found.model_dump() for found in ranges])
            began = positions_of(spool, name) or {found.partition: found.first for found in ranges}
            ends = {found.partition: found.end for found in ranges}
            async for batch in stretch.batches(began, ends):
                self._keep(name, batch, take)
                self._tell(name, ranges, began, batch.positions)
                if name == "results" and not spool.count(open_only=True):
                    break  # what stands behind the last answer that was waited for is of other runs
        with spool.transaction():
            if name == "results":
                self._settle()
            spool.note(f"{name}.done", True)

    def _keep(self, name: str, batch: Batch, take: Take) -> None:
        with self._spool.transaction():
            take(batch.records)
            self._left_out["expired"] += batch.expired
            self._spool.note("left_out", dict(self._left_out))
            self._spool.note(f"{name}.positions", {str(number): at for number, at in batch.positions.items()})

    def _tell(
        self, name: str, ranges: list[TopicRange], began: Mapping[int, int], positions: Mapping[int, int]
    ) -> None:
        if self._told[0] == name and self._told[1] + TOLD_EVERY_SECONDS > time.monotonic():
            return
        self._told = (name, time.monotonic())
        done = sum(positions[found.partition] - found.first for found in ranges)
        before = sum(began[found.partition] - found.first for found in ranges)
        total = sum(found.end - found.first for found in ranges)
        runs = self._spool.count()
        self._tell_somebody(Progress(step=name, done=done, total=total, since_begin=done - before, runs=runs))

    async def _where_requests_are(self, stretch: Stretch) -> list[TopicRange]:
        selection, existing = self._selection, await stretch.partitions()
        named = selection.partitions
        if named is not None and not named <= set(existing):
            raise RecordingError(f"{stretch.topic} has the partitions 0 to {max(existing)}")
        partitions = sorted(existing if named is None else named)
        starts, ends = await stretch.beginnings(partitions), await stretch.ends(partitions)
        first, last = dict(starts), dict(ends)
        if selection.since is not None:
            instant = int(selection.since.timestamp() * 1000)
            first = ends | await stretch.since(dict.fromkeys(partitions, instant))
        if selection.until is not None:
            last = ends | await stretch.since(dict.fromkeys(partitions, int(selection.until.timestamp() * 1000)))
        first = {number: max(at, selection.from_offsets.get(number, 0)) for number, at in first.items()}
        last = {number: min(at, selection.to_offsets.get(number, at)) for number, at in last.items()}
        return _ranges(stretch.topic, starts, first, last)

    async def _where_results_are(self, stretch: Stretch) -> list[TopicRange]:
        earliest = self._spool.earliest()
        starts, ends = await stretch.beginnings(earliest), await stretch.ends(earliest)
        first = ends | await stretch.since({number: at - CLOCKS_MS for number, at in earliest.items()})
        return _ranges(stretch.topic, starts, first, ends)

    async def _where_events_are(self, stretch: Stretch) -> list[TopicRange]:
        spans = self._spool.spans()
        starts, ends = await stretch.beginnings(spans), await stretch.ends(spans)
        first = ends | await stretch.since({number: began - AROUND_MS for number, (began, _) in spans.items()})
        last = ends | await stretch.since({number: ended + AROUND_MS for number, (_, ended) in spans.items()})
        return _ranges(stretch.topic, starts, first, last)

    def _requests(self, records: Iterable[Record]) -> None:
        for record in records:
            found = decode_delivery(record)
            if not isinstance(found, Delivery):
                self._left_out["rejected"] += 1
            elif self._selection.wants_request(record, found.request) and not self._add(record, found.request):
                self._left_out["repeated"] += 1

    def _add(self, record: Record, request: InvokeRequest) -> bool:
        where = record.position
        if where.partition not in self._order:
            self._order[where.partition] = self._spool.highest_order(where.partition)
        # Callers' clocks differ: within a partition the offset is what orders, so time must not run backwards.
        order = self._order[where.partition] = max(self._order[where.partition], record.timestamp_ms)
        row = RequestRow(
            run_id=request.id or "",
            session_id=request.session_id or "",
            partition=where.partition,
            offset=where.offset,
            timestamp_ms=record.timestamp_ms,
            request=request.to_bytes(),
        )
        return self._spool.add_request(row, order)

    def _results(self, records: Iterable[Record]) -> None:
        for record in records:
            result = decode_result(record)
            if isinstance(result, Problem):
                self._left_out["unreadable"] += 1
                continue
            waiting = self._spool.waiting(result.run_id, record.position.partition)
            if waiting is None or not _is_of(record, self._topics.invoke_requests, waiting[1]):
                continue
            number, _ = waiting
            if self._selection.wants_outcome(result):
                self._spool.add_result(number, _row(result, record.timestamp_ms, events=self._selection.events))
            else:
                self._spool.drop([number])

    def _settle(self) -> None:
        unwanted = [
            number
            for number, request in self._spool.unfinished()
            if not self._selection.wants_unfinished(InvokeRequest.model_validate_json(request))
        ]
        self._spool.drop(unwanted)
        self._spool.settle(self._selection.limit)

    def _events(self, records: Iterable[Record]) -> None:
        rows: list[tuple[int, int, int, bytes]] = []
        for record in records:
            found = _attempt_of(record)
            if found is None:
                self._left_out["unreadable"] += 1
                continue
            run_id, attempt_id, first_seq = found
            if (number := self._spool.run_of_attempt(run_id, attempt_id)) is not None:
                rows.append((number, first_seq, record.position.offset, record.value or b""))
        self._spool.add_events(rows)


def left_out(spool: Spool) -> LeftOut:
    """What a capture has left out so far."""
    return LeftOut.model_validate(spool.noted("left_out") or {})


def ranges_of(spool: Spool, step: str) -> list[TopicRange] | None:
    """What a step of a capture reads of its topic; None before it began."""
    noted = spool.noted(f"{step}.ranges")
    return [TopicRange.model_validate(found) for found in noted] if isinstance(noted, list) else None


def positions_of(spool: Spool, step: str) -> dict[int, int] | None:
    """How far a step has come, by partition; None before its first batch."""
    noted = spool.noted(f"{step}.positions")
    return {int(number): int(str(at)) for number, at in noted.items()} if isinstance(noted, dict) else None


def _ranges(
    topic: str, starts: Mapping[int, int], first: Mapping[int, int], last: Mapping[int, int]
) -> list[TopicRange]:
    found: list[TopicRange] = []
    for number, start in sorted(starts.items()):
        begin = max(start, first[number])
        found.append(
            TopicRange(topic=topic, partition=number, log_start=start, first=begin, end=max(begin, last[number]))
        )
    return found


def _is_of(record: Record, topic: str, offset: int) -> bool:
    """Whether a result is of the request at this offset: the same run id may have come twice, as another request."""
    named = header_text(last_wins(record.headers), REQUEST)
    return named is None or named == f"{topic}/{record.position.partition}/{offset}"


def _row(result: InvokeResult, timestamp_ms: int, *, events: bool) -> ResultRow:
    # The result's record is stamped by the clock that stamped those of its events, the worker's or the broker's; what
    # stands in the result may be another one's.
    lasted = result.ended_at - (result.started_at or result.ended_at)
    return ResultRow(
        result=result.to_bytes(),
        attempt_id=result.attempt_id if events and result.last_seq >= 0 else None,
        began_ms=timestamp_ms - int(lasted.total_seconds() * 1000),
        ended_ms=timestamp_ms,
    )


def _attempt_of(record: Record) -> tuple[str, str, int] | None:
    """Run, attempt and first `seq` of a delta record: by the headers that our producers write, else by its body.

    Reading headers takes a tenth of the time that reading the body does, and most records may be of runs not meant.
    """
    headers = dict(record.headers)
    subject, event = headers.get(CE_SUBJECT), headers.get(CE_ID)
    if subject and event:
        attempt_id, _, seq = event.decode("ascii", "replace").rpartition("-")
        if attempt_id and seq.isdecimal():
            return subject.decode("ascii", "replace"), attempt_id, int(seq)
    found = decode_events(record)
    return None if isinstance(found, Problem) else (found.run_id, found.attempt_id, found.first_seq)
