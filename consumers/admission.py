"""What is to be done about a record: run it, refuse it, or nothing because it is a duplicate. Plain and total."""

import logging
from dataclasses import dataclass

from agentstream.consumers.agent_config import NotAdmitted, WorkerAgentConfig, admit, refused_target
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.runs import Admitted
from agentstream.consumers.tracing.process import ProcessSpan
from agentstream.producers.failed_results import failed_without_run
from agentstream.producers.outcomes import Rejected, RunOutcome
from agentstream.schemas.codec import Bounds, Delivery, Rejection, body_hash, decode_delivery, position_id
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Run it."""

    admitted: Admitted
    """The request with all that is known about it."""
    run_id: str
    """The run."""
    session_id: str
    """Its lane."""
    body_hash: str
    """Tells a duplicate from a conflict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Bad, and its run id is known: a dead letter and a failed result."""

    end: RunOutcome
    """The failed result."""
    problem: Problem
    """Why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unnamed:
    """Bad, and no result is owed: it names no run, or one that has its own result. A dead letter alone."""

    end: Rejected
    """What is to be written down."""


class Admission:
    """Decides about the records of one partition under one claim."""

    def __init__(self, config: WorkerAgentConfig, bounds: Bounds, known: KnownRuns, claim: int) -> None:
        self._config = config
        self._bounds = bounds
        self._known = known
        self._claim = claim

    def decide(self, record: Record, process: ProcessSpan, *, strikes: int) -> Run | Refused | Unnamed | None:
        """What to do about a record that was just entered in the books; None for a duplicate.

        Its `process` span is told what is found out about it, and ended by the caller.
        """
        match decode_delivery(record, bounds=self._bounds):
            case Rejection() as rejection:
                if rejection.run_id is None or self._known.seen(rejection.run_id) is not None:
                    process.named(rejection.run_id or rejection.fallback_id, rejection.session_id)
                    return self._unnamed(record, rejection.problem, process, strikes)
                names = (rejection.run_id, rejection.session_id, rejection.redrive_of)
                return self._refused(record, names, rejection.problem, process, strikes)
            case Delivery() as delivery:
                return self._decide_request(delivery, record, process, strikes)

    def _decide_request(
        self, delivery: Delivery, record: Record, process: ProcessSpan, strikes: int
    ) -> Run | Refused | Unnamed | None:
        request = delivery.request
        run_id, session_id = request.id or "", request.session_id or ""
        hashed = body_hash(record.value)
        process.named(run_id, session_id)
        seen = self._known.seen(run_id)
        if seen == hashed:
            process.duplicate()
            log.info("request %s at %s is a duplicate and does not run again", run_id, record.position)
            return None
        if seen is not None:
            problem = Problem.of(ErrorCode.DUPLICATE_CONFLICT, f"run id {run_id} was used before, with another body")
            return self._unnamed(record, problem, process, strikes)
        parameters = refused_target(delivery.trace_target, self._config) or admit(request, self._config)
        if isinstance(parameters, NotAdmitted):
            names = (run_id, session_id, delivery.redrive_of)
            return self._refused(record, names, parameters.problem, process, strikes)
        admitted = Admitted(
            request=request,
            position=record.position,
            timestamp_ms=record.timestamp_ms,
            process=process,
            claim=self._claim,
            parameters=parameters,
            crashes=strikes,
            redrive_of=delivery.redrive_of,
        )
        return Run(admitted=admitted, run_id=run_id, session_id=session_id, body_hash=hashed)

    def _unnamed(self, record: Record, problem: Problem, process: ProcessSpan, strikes: int) -> Unnamed:
        log.warning("bad record at %s: %s: %s", record.position, problem.code, problem.detail)
        end = Rejected(
            record=record,
            fallback_id=position_id(record),
            body_hash=body_hash(record.value),
            problem=problem,
            trace=process.trace,
            deliveries=strikes + 1,
            send_trace=process.send_trace,
        )
        return Unnamed(end=end)

    def _refused(
        self, record: Record, names: tuple[str, str, str | None], problem: Problem, process: ProcessSpan, strikes: int
    ) -> Refused:
        run_id, session_id, redrive_of = names
        process.named(run_id, session_id)
        log.warning("request %s at %s is refused: %s: %s", run_id, record.position, problem.code, problem.detail)
        result = failed_without_run(
            run_id=run_id,
            session_id=session_id,
            partition=record.position.partition,
            claim=self._claim,
            problem=problem,
            timestamp_ms=record.timestamp_ms,
            trace=process.trace,
            redrive_of=redrive_of,
        )
        end = RunOutcome(
            record=record,
            body_hash=body_hash(record.value),
            result=result,
            trace=process.trace,
            deliveries=strikes + 1,
            send_trace=process.send_trace,
        )
        return Refused(end=end, problem=problem)
