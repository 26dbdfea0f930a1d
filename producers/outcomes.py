"""What one finished request leaves on the topics: result, line of the index, dead letter. Pure encoding."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from agentstream.producers.dead_letters import dead_letter
from agentstream.schemas.errors import ErrorCode, Problem, error_rule
from agentstream.schemas.headers import FINISHED_RUN, INVOKE_RESULT, cloud_event
from agentstream.schemas.records import OutgoingRecord, Record
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import FinishedRun, InvokeResult
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

MAX_KEPT_USAGE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Everything that is committed together with one input offset."""

    offset: int
    """The request's offset."""
    records: tuple[OutgoingRecord, ...] = ()
    """What to write; nothing for a duplicate."""
    fallback: tuple[OutgoingRecord, ...] | None = None
    """What to write instead if the brokers refuse `records` for what they are."""

    @property
    def size(self) -> int:
        """Bytes to write."""
        return sum(record.size for record in self.records)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """A run's end, with what is needed to write it down."""

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


class OutcomeEncoder:
    """Makes the records of an outcome. One per worker."""

    def __init__(self, topics: Topics, group_id: str, *, max_record_bytes: int) -> None:
        self._topics = topics
        self._group_id = group_id
        self._max_bytes = max_record_bytes

    def run(self, end: RunOutcome) -> Outcome:
        """A result, its line of the index, and a dead letter where the table of codes says so."""
        small = self._run_records(replace(end, result=too_large(end.result)))
        records = self._run_records(end)
        if any(record.size > self._max_bytes for record in records):
            records = small
        return Outcome(offset=end.record.position.offset, records=records, fallback=small)

    def _run_records(self, end: RunOutcome) -> tuple[OutgoingRecord, ...]:
        result, where = end.result, end.record.position
        records = [
            OutgoingRecord(
                topic=self._topics.assistant_messages,
                partition=where.partition,
                key=result.session_id.encode(),
                value=result.to_bytes(),
                headers=cloud_event(INVOKE_RESULT, result.run_id, end.trace, request=where),
            ),
            self._index_line(
                end.record,
                result.run_id,
                FinishedRun.bounded(
                    status=result.status,
                    session_id=result.session_id,
                    offset=where.offset,
                    attempt_id=result.attempt_id,
                    body_hash=end.body_hash,
                ),
                end.trace,
            ),
        ]
        if result.error is not None and error_rule(result.error.code).dead_letter:
            records.append(self._dead_letter(end.record, result.error, end.trace, end.deliveries))
        return tuple(records)

    def refused(self, end: RunOutcome, problem: Problem) -> Outcome:
        """A request that could not be admitted, and whose run id is known: dead letter and failed result."""
        letter = self._dead_letter(end.record, problem, end.trace, end.deliveries)
        result, line = self._run_records(end)[:2]
        return Outcome(offset=end.record.position.offset, records=(result, line, letter))

    def rejected(
        self, record: Record, fallback_id: str, body_hash: str, problem: Problem, trace: TraceContext, deliveries: int
    ) -> Outcome:
        """A record whose run id is not known, or is another run's: a dead letter, and a line under the record's own id.

        The line keeps a group that lost its offsets from writing the dead letter again.
        """
        line = FinishedRun.bounded(
            status="rejected",
            session_id="",
            offset=record.position.offset,
            attempt_id=None,
            body_hash=body_hash,
        )
        letter = self._dead_letter(record, problem, trace, deliveries)
        return Outcome(
            offset=record.position.offset, records=(self._index_line(record, fallback_id, line, trace), letter)
        )

    def _index_line(self, record: Record, run_id: str, line: FinishedRun, trace: TraceContext) -> OutgoingRecord:
        return OutgoingRecord(
            topic=self._topics.finished_runs,
            partition=record.position.partition,
            key=run_id.encode(),
            value=line.to_bytes(),
            headers=cloud_event(FINISHED_RUN, run_id, trace, request=record.position),
        )

    def _dead_letter(self, record: Record, problem: Problem, trace: TraceContext, deliveries: int) -> OutgoingRecord:
        return dead_letter(
            record,
            problem,
            trace,
            topic=self._topics.dead_letters,
            group_id=self._group_id,
            deliveries=deliveries,
            max_bytes=self._max_bytes,
        )


def too_large(result: InvokeResult) -> InvokeResult:
    """The result of a run whose own result cannot be written: at most 16 KiB, whatever the run did.

    A failed result stays the failure it was; a completed one becomes `output_too_large`. Of what is unbounded
    (messages, metadata, parameters, usage) nothing or a fixed number is kept.
    """
    problem = result.error or Problem.of(
        ErrorCode.OUTPUT_TOO_LARGE, f"{len(result.messages)} messages do not fit into one result record"
    )
    return result.model_copy(
        update={
            "status": "cancelled" if result.status == "cancelled" else "failed",
            "messages": (),
            "error": problem,
            "usage": result.usage[:MAX_KEPT_USAGE],
            "parameters": AgentParameters(model=result.parameters.model),
            "metadata": {},
        }
    )


def failed_without_run(  # noqa: PLR0913 - a result in which nearly everything is absent
    *,
    run_id: str,
    session_id: str,
    partition: int,
    claim: int,
    problem: Problem,
    timestamp_ms: int,
    trace: TraceContext,
) -> InvokeResult:
    """The result of a request that never ran."""
    return InvokeResult(
        run_id=run_id,
        session_id=session_id,
        partition=partition,
        status="failed",
        error=problem,
        claim=claim,
        attempt=0,
        deltas="complete",
        parameters=AgentParameters(),
        trace_id=trace.trace_id,
        requested_at=datetime.fromtimestamp(max(0, timestamp_ms) / 1000, UTC),
        ended_at=datetime.now(UTC),
    )
