"""A line in the log when a run starts and one when it ends, and the run's ids on every line between."""

import logging
import time
from collections.abc import Mapping
from typing import Final

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.runs import Runs
from agentstream.infra.log_context import begin_run, end_run
from agentstream.schemas.results import InvokeResult

log = logging.getLogger(__name__)


def _prepared(level: int, text: str) -> logging.LogRecord:
    return log.makeRecord(log.name, level, __file__, 0, text, (), None)


_STARTED: Final = _prepared(logging.INFO, "run started")
_ENDED: Final = _prepared(logging.INFO, "run ended")
_FAILED: Final = _prepared(logging.WARNING, "run ended")


class LoggedRuns(Runs):
    """Runs that say so."""

    def _begins(self, admitted: Admitted) -> None:
        # A run has a task of its own, and the tasks it starts inherit what is bound here.
        request = admitted.request
        begin_run({"run_id": request.id, "session_id": request.session_id, "trace_id": admitted.trace.trace_id})
        if log.isEnabledFor(_STARTED.levelno):
            _say(_STARTED, {"position": str(admitted.position), "crashes": admitted.crashes})

    def _ends(self, result: InvokeResult | None) -> None:
        if result is not None:
            line = _ENDED if result.error is None else _FAILED
            if log.isEnabledFor(line.levelno):
                _say(line, _facts(result))
        end_run()


def _facts(result: InvokeResult) -> dict[str, object]:
    seconds = None if result.started_at is None else (result.ended_at - result.started_at).total_seconds()
    fields: dict[str, object] = {"status": result.status, "seconds": seconds, "attempt": result.attempt}
    if result.usage:
        fields["input_tokens"] = sum(each.input_tokens for each in result.usage)
        fields["output_tokens"] = sum(each.output_tokens for each in result.usage)
    if result.error is not None:
        fields |= {"code": result.error.code.value, "detail": result.error.detail}
    return fields


def _say(prepared: logging.LogRecord, fields: Mapping[str, object]) -> None:
    # `log.info(…, extra=fields)` takes 2.5 µs more: it looks for its caller, process and thread, which no line shows,
    # and for each field among the record's own.
    now = time.time()
    record = object.__new__(logging.LogRecord)
    record.__dict__ = {**prepared.__dict__, **fields, "created": now, "msecs": now % 1 * 1_000}
    log.handle(record)
