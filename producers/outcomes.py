"""What one finished request leaves on the topics: result, line of the index, dead letter. Pure encoding."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from agentstream.producers.dead_letters import dead_letter
from agentstream.producers.failed_results import too_large
from agentstream.schemas.errors import ErrorCode, Problem, error_rule
from agentstream.schemas.headers import FINISHED_RUN, INVOKE_RESULT, cloud_event
from agentstream.schemas.records import OutgoingRecord, Record
from agentstream.schemas.results import FinishedRun, InvokeResult
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

Records = tuple[OutgoingRecord, ...]


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Everything that is committed together with one input offset. A value, though not frozen: see `RunOutcome`."""

    offset: int
    """The request's offset."""
    run_id: str | None = None
    """The run that ends with it; None where there is none, or it has a result of its own."""
    records: Records = ()
    """What to write; nothing for a duplicate."""
    fallback: Callable[[], Records] | None = None
    """Makes what to write instead if the brokers refuse `records` for what they are: small, whatever they were."""
    status: str | None = None
    """Of the result in it; None where there is none."""
    code: str | None = None
    """Why it failed, or why there is a dead letter."""
    dead_letter: bool = False
    """Whether there is one in it."""
    size: int = field(init=False)
    """Bytes to write."""

    def __post_init__(self) -> None:
        # Asked for again when a transaction is filled: to add up twenty headers takes 3 µs each time.
        self.size = sum([record.size for record in self.records])

    def as_fallback(self) -> "Outcome":
        """What to write instead, if there is anything; what completed has failed then."""
        if self.fallback is None:
            return self
        smaller = replace(self, records=self.fallback(), fallback=None)
        if self.status != "completed":
            return smaller
        return replace(smaller, status="failed", code=ErrorCode.OUTPUT_TOO_LARGE.value)


@dataclass(kw_only=True, slots=True)
class RunOutcome:
    """A run's end, with what is needed to write it down.

    A value, which nobody changes. It is not frozen since each run has one: to set a frozen one's fields takes three
    times as long, and with `Outcome` and `Admitted` 1.5 µs more a run.
    """

    record: Record
    """The request's record."""
    body_hash: str
    """First 16 hex digits of the SHA-256 of the record's value."""
    result: InvokeResult
    """The result."""
    trace: TraceContext
    """The run's trace."""
    deliveries: int = 1
    """How often the request was delivered to a worker, this one included."""
    send_trace: Callable[[str], TraceContext] | None = None
    """Trace context for the headers of a record that a topic is sent; None: `trace`, on all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A record that names no run, or one that has its own result."""

    record: Record
    """The record."""
    fallback_id: str
    """An id made of its position."""
    body_hash: str
    """Of its value."""
    problem: Problem
    """What is wrong with it."""
    trace: TraceContext
    """Its trace."""
    deliveries: int = 1
    """How often it was delivered to a worker, this one included."""
    send_trace: Callable[[str], TraceContext] | None = None
    """Trace context for the headers of a record that a topic is sent; None: `trace`, on all."""


class OutcomeEncoder:
    """Makes the records of an outcome. One per worker."""

    def __init__(self, topics: Topics, group_id: str, *, max_record_bytes: int) -> None:
        self._topics = topics
        self._group_id = group_id
        self._max_bytes = max_record_bytes

    def run(self, end: RunOutcome) -> Outcome:
        """A result, its line of the index, and a dead letter where the table of codes says so."""

        outcome = self._ended(end)
        # Nearly always all of its records together are smaller than one may be.
        if outcome.size <= self._max_bytes or all(record.size <= self._max_bytes for record in outcome.records):
            return outcome
        return self._ended(replace(end, result=too_large(end.result)))

    def _ended(self, end: RunOutcome) -> Outcome:
        error = end.result.error
        return Outcome(
            offset=end.record.position.offset,
            run_id=end.result.run_id,
            records=self._run_records(end, self._max_bytes),
            fallback=partial(self._small_run_records, end),
            status=end.result.status,
            code=None if error is None else error.code.value,
            dead_letter=error is not None and error_rule(error.code).dead_letter,
        )

    def _small_run_records(self, end: RunOutcome) -> Records:
        return self._run_records(replace(end, result=too_large(end.result)), max_letter=0)

    def refused(self, end: RunOutcome, problem: Problem) -> Outcome:
        """A request that could not be admitted, and whose run id is known: dead letter and failed result."""
        kept = (self._result(end), self._line_of_run(end))

        def small(max_letter: int = 0) -> Records:
            return (*kept, self._dead_letter(end, end.result.run_id, problem, max_letter))

        return Outcome(
            offset=end.record.position.offset,
            run_id=end.result.run_id,
            records=small(self._max_bytes),
            fallback=small,
            status=end.result.status,
            code=problem.code.value,
            dead_letter=True,
        )

    def rejected(self, end: Rejected) -> Outcome:
        """A record whose run id is not known, or is another run's: a dead letter, and a line under the record's own id.

        The line keeps a group that lost its offsets from writing the dead letter again.
        """
        where = end.record.position
        line = FinishedRun.bounded(
            status="rejected", session_id="", offset=where.offset, attempt_id=None, body_hash=end.body_hash
        )
        kept = self._index_line(end.record, end.fallback_id, line, end.trace)

        def small(max_letter: int = 0) -> Records:
            return (kept, self._dead_letter(end, end.fallback_id, end.problem, max_letter))

        return Outcome(
            offset=where.offset,
            records=small(self._max_bytes),
            fallback=small,
            code=end.problem.code.value,
            dead_letter=True,
        )

    def _run_records(self, end: RunOutcome, max_letter: int) -> Records:
        records = (self._result(end), self._line_of_run(end))
        error = end.result.error
        if error is None or not error_rule(error.code).dead_letter:
            return records
        return (*records, self._dead_letter(end, end.result.run_id, error, max_letter))

    def _result(self, end: RunOutcome) -> OutgoingRecord:
        result, where = end.result, end.record.position
        return OutgoingRecord(
            topic=self._topics.assistant_messages,
            partition=where.partition,
            key=result.session_id.encode(),
            value=result.to_bytes(),
            headers=cloud_event(
                INVOKE_RESULT, result.run_id, _trace(end, self._topics.assistant_messages), request=where
            ),
        )

    def _line_of_run(self, end: RunOutcome) -> OutgoingRecord:
        result = end.result
        line = FinishedRun.bounded(
            status=result.status,
            session_id=result.session_id,
            offset=end.record.position.offset,
            attempt_id=result.attempt_id,
            body_hash=end.body_hash,
        )
        return self._index_line(end.record, result.run_id, line, end.trace)

    def _index_line(self, record: Record, run_id: str, line: FinishedRun, trace: TraceContext) -> OutgoingRecord:
        return OutgoingRecord(
            topic=self._topics.finished_runs,
            partition=record.position.partition,
            key=run_id.encode(),
            value=line.to_bytes(),
            headers=cloud_event(FINISHED_RUN, run_id, trace, request=record.position),
        )

    def _dead_letter(self, end: RunOutcome | Rejected, run_id: str, problem: Problem, max_bytes: int) -> OutgoingRecord:
        return dead_letter(
            end.record,
            problem,
            _trace(end, self._topics.dead_letters),
            run_id=run_id,
            topic=self._topics.dead_letters,
            group_id=self._group_id,
            deliveries=end.deliveries,
            max_bytes=max_bytes,
        )


def _trace(end: RunOutcome | Rejected, topic: str) -> TraceContext:
    return end.trace if end.send_trace is None else end.send_trace(topic)
