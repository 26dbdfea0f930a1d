"""A line in the log when a run starts and one when it ends, and the run's ids on every line between."""

import logging
from typing import Final

from structlog.contextvars import bind_contextvars, unbind_contextvars

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.runs import Runs
from agentstream.schemas.results import InvokeResult

log = logging.getLogger(__name__)


_IDS: Final = ("run_id", "session_id", "trace_id")


class LoggedRuns(Runs):
    """Runs that say so."""

    def _begins(self, admitted: Admitted) -> None:
        # A run has a task of its own, and the tasks it starts inherit what is bound here.
        request = admitted.request
        bind_contextvars(run_id=request.id, session_id=request.session_id, trace_id=admitted.trace.trace_id)
        log.info("run started", extra={"position": str(admitted.position), "crashes": admitted.crashes})

    def _ends(self, result: InvokeResult | None) -> None:
        if result is not None:
            _say_ended(result)
        unbind_contextvars(*_IDS)


def _say_ended(result: InvokeResult) -> None:
    tokens = {}
    if result.usage:
        tokens["input_tokens"] = sum(each.input_tokens for each in result.usage)
        tokens["output_tokens"] = sum(each.output_tokens for each in result.usage)
    seconds = None if result.started_at is None else (result.ended_at - result.started_at).total_seconds()
    fields = {"status": result.status, "seconds": seconds, "attempt": result.attempt, **tokens}
    if result.error is None:
        log.info("run ended", extra=fields)
    else:
        log.warning("run ended", extra={**fields, "code": result.error.code.value, "detail": result.error.detail})
