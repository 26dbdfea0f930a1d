"""Spans of attempts that were lost with their worker: built from the delta log by the next owner of the partition.

A killed worker exports nothing, and its runs are the ones that somebody will look for. Only the owner that counts the
strike writes, so each lost attempt is written once. Done beside the runs: nothing waits for it but the ends of spans.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from aiokafka.errors import KafkaError

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.readers.tail import TopicMissing
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.tracing.process import ProcessSpan, process_span
from agentstream.consumers.tracing.spans import SpanError, SpanMaker, nanoseconds
from agentstream.schemas import span_names as names
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import PartDelta, ReadEvent, RunEnded, RunRetrying, StreamEvents, ToolProgressed
from agentstream.schemas.readers import decode_events
from agentstream.schemas.records import Record
from agentstream.schemas.trace import TraceContext

log = logging.getLogger(__name__)
GATHER_SECONDS: Final = 5.0
"""Requests whose runs were lost are the first that a new owner reads; after so long it goes on with those it has."""
SCAN_SECONDS: Final = 30.0
_LOST: Final = "the worker was lost while it ran"
_UNHEARD: Final = f"{_LOST}; none of its events was found, so it began at some time in this span"
SLACK_MS: Final = 60_000
"""Between the clocks of callers and workers: events from so long before the oldest request are looked at."""


class ReadDeltas(Protocol):
    """Reads a partition of the delta topic again, from an instant to its end as it is now, within bounds."""

    def __call__(self, partition: int, since_ms: int, seen: Callable[[Record], bool]) -> Awaitable[None]:
        """Give `seen` each record until it says True. Raises TopicMissing, KafkaError, OSError or TimeoutError."""
        ...


async def read_nothing(partition: int, since_ms: int, seen: Callable[[Record], bool]) -> None:
    """Where there is no log."""


@dataclass(eq=False, slots=True)
class _Attempt:
    """What the log tells of one attempt."""

    name: AttemptName
    began: datetime
    events: list[ReadEvent] = field(default_factory=list)
    next_seq: int = 0

    def saw(self, event: ReadEvent) -> None:
        if event.seq < self.next_seq:
            return
        self.next_seq = event.seq + 1
        # Of a text only its first piece matters: kept whole, the answers of a hundred runs would fill the memory.
        if isinstance(event, ToolProgressed):
            return
        if isinstance(event, PartDelta) and self.events and isinstance(self.events[-1], PartDelta):
            return
        self.events.append(event)


@dataclass(eq=False, slots=True)
class _Lost:
    """A run that was under way, and its attempts under the lost claim."""

    record: Record
    admitted: Admitted
    attempts: dict[int, _Attempt] = field(default_factory=dict)

    def saw(self, found: StreamEvents) -> None:
        """One record of the run's events under the lost claim."""
        name = AttemptName(
            run_id=found.run_id,
            session_id=found.session_id,
            claim=found.claim,
            attempt=found.attempt,
            attempt_id=found.attempt_id,
        )
        attempt = self.attempts.setdefault(found.attempt, _Attempt(name, found.events[0].time))
        if attempt.name.attempt_id == found.attempt_id:
            for event in found.events:
                attempt.saw(event)


class LostAttempts:
    """The attempts of one partition that were under way when its former owner vanished. `write` is run once."""

    def __init__(
        self, make: SpanMaker, read: ReadDeltas, *, partition: int, claim: int, offsets: frozenset[int]
    ) -> None:
        """`claim`: the former owner's; `offsets`: of the requests whose runs it lost."""
        self._make = make
        self._read = read
        self._partition = partition
        self._claim = claim
        self._missing = set(offsets)
        self._lost: dict[str, _Lost] = {}
        self._gathered = asyncio.Event()

    def taken_again(self, record: Record, admitted: Admitted) -> None:
        """A request was read; perhaps its run is one of those."""
        if record.position.offset in self._missing:
            self._missing.discard(record.position.offset)
            self._lost[admitted.run_id] = _Lost(record, admitted)
            admitted.process.expect_lost()
            if not self._missing:
                self._gathered.set()

    async def write(self) -> None:
        """Wait until the requests were read again, look at the log, write the spans. Raises only CancelledError."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._gathered.wait()
            self._missing.clear()
            if self._lost:
                since = min(lost.record.timestamp_ms for lost in self._lost.values()) - SLACK_MS
                async with asyncio.timeout(SCAN_SECONDS):
                    await self._read(self._partition, since, self._seen)
        except (KafkaError, TopicMissing, OSError, TimeoutError) as error:
            log.warning("partition %d: spans of lost attempts are incomplete: %r", self._partition, error)
        finally:
            self._missing.clear()
            for lost in self._lost.values():
                lost.admitted.process.lost_was(self._write(lost))

    def _seen(self, record: Record) -> bool:
        found = decode_events(record)
        if isinstance(found, StreamEvents) and found.claim == self._claim and found.run_id in self._lost:
            self._lost[found.run_id].saw(found)
        return False

    def _write(self, lost: _Lost) -> TraceContext | None:
        """The spans of one lost run, below a `process` span of their own; gives the last attempt's."""
        attempts = [attempt for _, attempt in sorted(lost.attempts.items())] or [self._unheard(lost)]
        began = attempts[0].began
        process = process_span(self._make, lost.record, claim=self._claim, lost_at=nanoseconds(began))
        process.named(lost.admitted.run_id, lost.admitted.session_id)
        for attempt in attempts:
            self._write_attempt(lost.admitted, process, attempt)
        process.abandoned(names.WORKER_LOST, began=True)
        return process.attempt_trace(attempts[-1].name.attempt_id)

    def _unheard(self, lost: _Lost) -> _Attempt:
        """An attempt of which only the mark is left that it began: a request that kills its worker at once leaves no
        event, and its trace would show that nothing was tried.

        It began after its request was there and after the claim, whose number is the time in ms or a little more.
        """
        latest = self._make.now() // 1_000_000
        began = min(latest, max(lost.record.timestamp_ms, self._claim))
        name = AttemptName(
            run_id=lost.admitted.run_id,
            session_id=lost.admitted.session_id,
            claim=self._claim,
            attempt=1,
            attempt_id=f"unknown-{lost.record.position}/{self._claim}",
        )
        return _Attempt(name, datetime.fromtimestamp(began / 1_000, UTC))

    def _write_attempt(self, admitted: Admitted, process: ProcessSpan, attempt: _Attempt) -> None:
        """With its own end, where that is on the log."""
        facts = AgentFacts(model=admitted.parameters.model, harness=admitted.parameters.choice.kind)
        spans = process.attempt(attempt.name, facts, attempt.began)
        spans.lost()
        for event in attempt.events:
            spans.saw(event, event.time)
        last = attempt.events[-1] if attempt.events else None
        if isinstance(last, RunEnded | RunRetrying):
            reason = last.finish_reason if isinstance(last, RunEnded) else None
            spans.close(nanoseconds(last.time), _error(last.error), reason=reason, cost=None)
        else:
            error = SpanError(code=names.WORKER_LOST, detail=_LOST if attempt.events else _UNHEARD)
            spans.close(self._make.now(), error, reason=None, cost=None)


def _error(problem: Problem | None) -> SpanError | None:
    return None if problem is None else SpanError(code=problem.code.value, detail=problem.detail)
