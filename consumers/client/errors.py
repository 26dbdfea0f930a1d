"""What may go wrong for a caller.

    ClientError
     ├─ RequestRefused     not sent: not a valid request, too large, not allowed. Never again as it is
     ├─ TopicsMissing      the topics do not exist, or too few partitions of them. Again after `topics apply`
     ├─ BrokerUnavailable  the brokers did not answer. Again; a request that was perhaps sent keeps its run id
     ├─ RunTimeout         the caller's own patience ended. Wait again
     ├─ ResultUnreadable   the run ended, but its result cannot be read
     ├─ ResultExpired      the run ended before, and its result is no longer on the log
     ├─ RunIdTaken         the run id was used before, with another body. Never again under this id
     ├─ SessionUnknown     no request of this session is on the log
     ├─ SessionBusy        the session's last run has not ended. Again when it has
     ├─ HistoryLost        turns of this session are no longer on the log
     └─ RunFailed          the run ended, and not as completed. Only raised where the caller asks for it

A failed run is a result like any other.
"""

import re
from typing import Final

from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.schemas.errors import Problem
from agentstream.schemas.results import InvokeResult

_LACKING: Final = {
    # aiokafka's text is the name of the class, twice, and perhaps that of the topic.
    "TopicAuthorizationFailedError": ("topic", "reading it takes Read, sending to it Write"),
    "GroupAuthorizationFailedError": ("group", "looking at it takes Describe, working in it Read"),
}
_NUMBER: Final = re.compile(r"^\[Error -?\d+\] ")
_ADDRESS: Final = re.compile(r"\[?\('([^']*)', (\d+), <AddressFamily[^>]*>\)\]?")


def in_words(error: BaseException) -> str:
    """What the Kafka library raised as somebody can read it: aiokafka shows addresses as tuples."""
    if kind := _LACKING.get(type(error).__name__):
        named = error.args[0] if error.args else ""
        names = ", ".join(map(str, named)) if isinstance(named, set | frozenset | list | tuple) else str(named)
        return f"this user lacks a right on {kind[0]} {names}".rstrip() + f": {kind[1]}"
    said = _ADDRESS.sub(r"\1:\2", " ".join(str(error).split()))
    said = _NUMBER.sub("", said).removeprefix(f"{type(error).__name__}: ")
    if said:
        return said
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


class ClientError(Exception):
    """Whatever a client raises by itself."""


class ClientNotOpen(ClientError, RuntimeError):
    """A client was used before it was opened or after it was closed: what it opened then would never be closed."""

    def __init__(self, how: str = "async with AgentClient") -> None:
        super().__init__(f"the client is not open: use it inside `{how}(…) as client:`")


class RequestRefused(ClientError):
    """The request was not accepted and will not run."""


class RightMissing(RequestRefused):
    """This user may not do that. The text names the right where it is known."""


class TopicsMissing(ClientError):
    """The topics that a client needs are not there."""


class BrokerUnavailable(ClientError):
    """The brokers could not be reached, or did not answer in time."""


class RunTimeout(ClientError, TimeoutError):
    """No result within the caller's time. `submitted` can be waited for again: the run goes on, unless this ended the
    block of a `stream`, which cancels it."""

    def __init__(self, submitted: SubmittedRun, seconds: float) -> None:
        super().__init__(f"run {submitted.run_id} has no result after {seconds:g} s")
        self.submitted = submitted


class ResultUnreadable(ClientError):
    """A result was found that this version cannot read."""

    def __init__(self, run_id: str, problem: Problem) -> None:
        super().__init__(f"the result of run {run_id} cannot be read: {problem.detail or problem.title}")
        self.problem = problem


class ResultExpired(ClientError):
    """The same request was sent before and its run has ended, so that it does not run again."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} ended before, and its result is no longer on the log; use another run id")


class RunIdTaken(ClientError):
    """Another request has this run id: this one is a dead letter `duplicate_conflict`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run id {run_id} was used before, with another body; use another run id")


class SessionUnknown(ClientError):
    """Nothing of a session is on the log, where Kafka's default partitioner places it."""

    def __init__(self, session_id: str, partition: int) -> None:
        super().__init__(
            f"session {session_id} is not on the log (partition {partition}): it was never asked anything, or so long "
            "ago that retention has taken all of it"
        )


class SessionBusy(ClientError):
    """The last run of a session has no result yet, so that its history is not complete."""

    def __init__(self, session_id: str, run_id: str) -> None:
        super().__init__(
            f"session {session_id} is not at rest: run {run_id} has no result yet (`agentstream where {run_id}` says "
            "why); try again when it has"
        )
        self.run_id = run_id


class HistoryLost(ClientError):
    """A part of a session's history is gone by retention."""

    def __init__(self, session_id: str, turns: int) -> None:
        gone = "1 turn of it is" if turns == 1 else f"{turns} turns of it are"
        super().__init__(f"session {session_id}: {gone} no longer on the log, gone by retention")
        self.turns = turns


class RunFailed(ClientError):
    """The run failed or was cancelled."""

    def __init__(self, result: InvokeResult) -> None:
        error = result.error
        reason = f"{error.code}: {error.detail or error.title}" if error else result.status
        super().__init__(f"run {result.run_id} {result.status}: {reason}")
        self.result = result
