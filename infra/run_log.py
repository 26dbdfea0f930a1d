"""A line in the log when a run starts and one when it ends, and the run's ids on every line between."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from structlog.contextvars import bind_contextvars, unbind_contextvars

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.interrupt import Interrupt
from agentstream.consumers.runs import Runs
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.results import InvokeResult

log = logging.getLogger(__name__)


class LoggedRuns(Runs):
    """Runs that say so."""

    async def execute(
        self, admitted: Admitted, interrupt: Interrupt | None = None
    ) -> AsyncGenerator[StreamEvents | InvokeResult, None]:
        """As `Runs.execute`."""
        # A run has a task of its own, and the tasks it starts inherit what is bound here.
        ids = {
            "run_id": admitted.request.id,
            "session_id": admitted.request.session_id,
            "trace_id": admitted.trace.trace_id,
        }
        bind_contextvars(**ids)
        try:
            log.info("run started", extra={"position": str(admitted.position), "crashes": admitted.crashes})
            # Whoever closes us closes the run: left to the garbage collector it would go on.
            async with aclosing(super().execute(admitted, interrupt)) as produced:
                async for item in produced:
                    if isinstance(item, InvokeResult):
                        _say_ended(item)
                    yield item
        finally:
            unbind_contextvars(*ids)


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
