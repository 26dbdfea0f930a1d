"""How an attempt or a run ended, and what is said of it on the wire."""

from agentstream.consumers.harness.port import Failed, Finished
from agentstream.consumers.interrupt import Cancelled, Drained
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import RunStatus
from agentstream.schemas.messages import FinishReason

Outcome = Finished | Failed | Cancelled | Drained


def status_of(outcome: Outcome) -> RunStatus:
    """The status in events and results."""
    match outcome:
        case Finished():
            return "completed"
        case Cancelled():
            return "cancelled"
        case _:
            return "failed"


def reason_of(outcome: Outcome) -> FinishReason:
    """Why the model stopped."""
    match outcome:
        case Finished():
            return outcome.finish_reason
        case Cancelled():
            return "cancelled"
        case _:
            return "error"


def problem_of(outcome: Outcome) -> Problem | None:
    """What went wrong, if anything did."""
    match outcome:
        case Failed():
            problem = Problem.of(outcome.code, outcome.detail)
            return problem if outcome.retriable is None else problem.model_copy(update={"retriable": outcome.retriable})
        case Cancelled():
            return Problem.of(ErrorCode.CANCELLED, outcome.reason)
        case _:
            return None
