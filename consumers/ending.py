"""How an attempt or a run ended, and what is said of it on the wire."""

from agentstream.consumers.harness.port import Failed, Finished
from agentstream.consumers.interrupt import Cancelled, Drained
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import RunStatus
from agentstream.schemas.messages import FinishReason
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import InvokeResult

Ending = Finished | Failed | Cancelled | Drained


def status_of(ending: Ending) -> RunStatus:
    """The status in events and results."""
    match ending:
        case Finished():
            return "completed"
        case Cancelled():
            return "cancelled"
        case _:
            return "failed"


def reason_of(ending: Ending) -> FinishReason:
    """Why the model stopped."""
    match ending:
        case Finished():
            return ending.finish_reason
        case Cancelled():
            return "cancelled"
        case _:
            return "error"


def problem_of(ending: Ending) -> Problem | None:
    """What went wrong, if anything did."""
    match ending:
        case Failed():
            problem = Problem.of(ending.code, ending.detail)
            return problem if ending.retriable is None else problem.model_copy(update={"retriable": ending.retriable})
        case Cancelled():
            return Problem.of(ErrorCode.CANCELLED, ending.reason)
        case _:
            return None


def unspeakable(result: InvokeResult) -> InvokeResult:
    """In place of a result that holds a secret where it cannot be redacted: nothing of what it says."""
    problem = Problem.of(ErrorCode.INTERNAL, "a secret stands in a field that cannot be redacted")
    return result.model_copy(
        update={
            "status": "failed",
            "error": problem,
            "messages": (),
            "metadata": {},
            "usage": (),
            "parameters": AgentParameters(),
        }
    )
