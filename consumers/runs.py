"""Everything between an admitted request and its numbered events and result.

    Runs.execute(Admitted, Interrupt) -> StreamEvents …, one InvokeResult

A run is one or more attempts. `attempt.py` plays one; `run_progress.py` decides what its ending means: try again, or
the end.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from random import Random

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.attempt import Surroundings
from agentstream.consumers.ending import Ending, unspeakable
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.interrupt import Cancelled, Drained, Interrupt
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.consumers.pump import Abandoned
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.run_progress import RunProgress
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.results import InvokeResult

_log = logging.getLogger(__name__)

_now = partial(datetime.now, UTC)

__all__ = ["Admitted", "Interrupt", "Runs"]


class Runs:
    """Runs admitted requests through their harnesses. One per worker, used by all lanes at once; nothing to close."""

    def __init__(
        self,
        harnesses: Mapping[str, Harness],
        *,
        redactor: Redactor,
        rng: Random | None = None,
        now: Callable[[], datetime] = _now,
        metrics: Metrics | None = None,
    ) -> None:
        """`harnesses` by kind, open. `now` is the wall clock; monotonic time is the running loop's `time()`."""
        self._harnesses = harnesses
        self._rng = rng or Random()
        self._abandoned = Abandoned()
        self._around = Surroundings(
            redactor=redactor, abandoned=self._abandoned, now=now, metrics=metrics or Metrics.none()
        )

    @property
    def abandoned(self) -> int:
        """Harness runs, alive now, that did not end within two seconds of their cancellation."""
        return len(self._abandoned)

    async def execute(
        self, admitted: Admitted, interrupt: Interrupt | None = None
    ) -> AsyncGenerator[StreamEvents | InvokeResult, None]:
        """Run it: events first, then exactly one InvokeResult, the last thing yielded.

        Exactly one result, whatever the agent does; only a drained run ends without. The result's `last_seq` is the
        last numbered event's and its `deltas` says `complete`: the caller, who publishes them, knows better and
        copies the result with what it knows. Events are filtered, merged, redacted and numbered, and each record fits
        the delta topic. Its `messages` are those of the last attempt, its `usage` and `cost` cover all attempts of
        this claim, since all are billed. Raises only for our own bugs, or CancelledError; cancelled or closed, nothing
        more is yielded and the harness is cancelled. What never starts has a result with attempt 0 and no events.
        """
        interrupt = interrupt or Interrupt()
        harness = self._harnesses[admitted.parameters.choice.kind]
        run = RunProgress(admitted, interrupt, harness=harness, around=self._around)
        result: InvokeResult | None = None
        self._begins(admitted)
        try:
            ending: Ending | None = run.refusal()
            while ending is None:
                async with run.begin_attempt() as attempt:
                    for record in attempt.add(run.started_event):
                        yield record
                    while attempt.ending is None:
                        for record in await attempt.more():
                            yield record
                ending, retry = run.judge(attempt.ending, self._rng)
                for record in attempt.add(run.closing_event(ending or attempt.ending, retry)):
                    yield record
                if retry is not None:
                    ending = await run.wait(retry)
                    # The next attempt's `run.started` voids this one; without one, the stream still needs its end.
                    if isinstance(ending, Cancelled):
                        for record in attempt.add(run.closing_event(ending, None)):
                            yield record
            if not isinstance(ending, Drained):
                result = self._redacted(run.result(ending))
                yield result
        finally:
            self._ends(result)

    def _begins(self, admitted: Admitted) -> None:
        """A run begins, in the task that works it off. For who wants to tell of it."""

    def _ends(self, result: InvokeResult | None) -> None:
        """It is over, in the same task: with this result, or without one since it was drained or closed."""

    def _redacted(self, result: InvokeResult) -> InvokeResult:
        """The result without secrets. One that cannot be redacted must not leave, nor may it end the worker."""
        try:
            return self._around.redactor.model(result)
        except ValueError:
            _log.exception("a result cannot be redacted", extra={"run_id": result.run_id})
            return unspeakable(result)
