"""One attempt at a run: from the harness's start to an ending, with everything that may go wrong between."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeGuard, get_args

from agentstream.consumers.bill import Bill
from agentstream.consumers.ending import Ending, problem_of, reason_of
from agentstream.consumers.harness.port import (
    Failed,
    Finished,
    Harness,
    HarnessEvent,
    HarnessRequest,
    Terminal,
    Waiting,
)
from agentstream.consumers.interrupt import Drained, Interrupt
from agentstream.consumers.metrics.calls import CallMetrics
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.consumers.numbering import Numbering
from agentstream.consumers.pump import STOP_SECONDS, Abandoned, Pump
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.tracing.spans import SpanError, nanoseconds
from agentstream.consumers.tracing.untraced import UNTRACED, AttemptSpans
from agentstream.consumers.watchdog import NEVER, Watchdog
from agentstream.schemas import span_names as names
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import AnyEvent, RunAlive, StreamEvents
from agentstream.schemas.messages import FinishReason, Message

_log = logging.getLogger(__name__)

_EVENTS: Final = frozenset(get_args(HarnessEvent))
_REASONS: Final = frozenset(get_args(FinishReason))


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What all attempts of a worker share."""

    redactor: Redactor
    """Known secrets."""
    abandoned: Abandoned
    """Where harness runs are left that do not end."""
    now: Callable[[], datetime]
    """The wall clock."""
    metrics: Metrics
    """What is counted and measured."""


class Attempt:
    """Plays one attempt: within `async with` its harness runs. Ask for `more` until it has an `ending`.

    Its events are numbered; `run.started` and the last one are added by the caller, with `add`. Left early, its harness
    is cancelled and nothing more comes.
    """

    def __init__(  # noqa: PLR0913 - each is a part of what an attempt is
        self,
        harness: Harness,
        request: HarnessRequest,
        *,
        numbering: Numbering,
        watchdog: Watchdog,
        bill: Bill,
        interrupt: Interrupt,
        surroundings: Surroundings,
        spans: AttemptSpans,
    ) -> None:
        self.request = request
        self.messages: list[Message] = []
        self.started_at = surroundings.now()
        self._harness = harness
        self._numbering = numbering
        self._watchdog = watchdog
        self._bill = bill
        self._interrupt = interrupt
        self._around = surroundings
        self._spans = spans
        self._calls = CallMetrics(surroundings.metrics, request.model, request.tools)
        # As a rule nobody: two calls for each event that do nothing are 3 µs a run.
        self._watchers = [
            watcher.saw
            for watcher, looks in ((spans, spans is not UNTRACED), (self._calls, surroundings.metrics.are_read))
            if looks
        ]
        self._clock = interrupt.bell.loop.time
        self._pump: Pump | None = None
        self.ending: Ending | None = None
        """How it ended, once it has."""
        self._terminal: Terminal | None = None
        self._terminal_due = NEVER
        self._limit_due = NEVER

    @property
    def last_seq(self) -> int:
        """`seq` of the last event."""
        return self._numbering.last_seq

    def add(self, event: AnyEvent) -> list[StreamEvents]:
        """Number one more event; gives the records that must go."""
        return self._numbering.add(event, at=self._clock(), time=self._around.now())

    async def __aenter__(self) -> Self:
        name = f"harness {self.request.run_id} {self.request.attempt_id}"
        run = partial(self._harness.run, self.request)
        self._pump = Pump(run, name=name, bell=self._interrupt.bell, now=self._around.now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupt.bell.stop()
        if self._watchers:
            self._close_spans()
        pump = self._playing
        if not pump.task.done():
            await self._stop(pump)

    async def more(self) -> list[StreamEvents]:
        """Wait for something to happen, or for the next time to look; gives the records that must go then."""
        pump = self._playing
        if not pump.begun:
            # It begins next. One that has all its events at once costs no timer and no second turn of the loop.
            await asyncio.sleep(0)
        due = self._limit_due = self._watchdog.due if self._terminal is None else self._terminal_due
        lingering = self._numbering.due
        await self._interrupt.bell.wait(due if lingering is None or due < lingering else lingering)
        return self._step(pump, self._clock())

    def _step(self, pump: Pump, at: float) -> list[StreamEvents]:
        """Take what came and look at the clock."""
        records: list[StreamEvents] = []
        for event, time in pump.take():
            records += self._take(event, time, at)
            if self.ending is not None:
                break
        else:
            self.ending = self._judge(pump, at)
        lingering = self._numbering.due
        if lingering is not None and lingering <= at:
            records += self._numbering.flush()
        if records:
            self._watchdog.emitted(at=at)
        elif at >= self._limit_due and self.ending is None and self._watchdog.is_silent(at=at):
            self._watchdog.emitted(at=at)
            records = self.add(RunAlive()) + self._numbering.flush()
        return records

    @property
    def _playing(self) -> Pump:
        assert self._pump is not None, "an attempt plays within `async with`"
        return self._pump

    def _take(self, event: object, time: datetime, at: float) -> list[StreamEvents]:
        if self._terminal is not None:
            self.ending = self._broken_port(f"yielded {type(event).__name__} after its end")
        elif _is_event(event):
            self.ending = self._watchdog.saw(event, at=at)
            if self.ending is None:
                for saw in self._watchers:
                    saw(event, time)
                if event.type == "message.ended":
                    self._bill.saw(event)
                    if event.message is not None:
                        self.messages.append(event.message)
                elif event.type == "turn.ended":
                    self._bill.saw(event)
                return self._numbering.add(event, at=at, time=time)
        elif isinstance(event, Terminal):
            self._terminal, self._terminal_due = event, at + STOP_SECONDS
        elif isinstance(event, Waiting):
            self._watchdog.waits(at=at)
        else:
            self.ending = self._broken_port(f"yielded {type(event).__name__}, which is no event")
        return []

    def _close_spans(self) -> None:
        """Whatever way it ended; without an ending, the partition is lost and the attempt was left."""
        ending = self.ending
        cost = ending.cost if isinstance(ending, Finished | Failed) else None
        reason = None if ending is None else reason_of(ending)
        now, error = self._around.now(), self._span_error(ending)
        self._spans.close(nanoseconds(now), error, reason=reason, cost=cost)
        self._calls.close(now, None if error is None else error.code)

    def _span_error(self, ending: Ending | None) -> SpanError | None:
        if ending is None:
            return SpanError(code=names.PARTITION_LOST)
        if isinstance(ending, Drained):
            return SpanError(code=names.DRAINING)
        problem = problem_of(ending)
        if problem is None:
            return None
        return SpanError(code=problem.code.value, detail=self._around.redactor.text(problem.detail or ""))

    def _judge(self, pump: Pump, at: float) -> Ending | None:
        """Whether an ending stands by now, after all that came was taken."""
        if pump.ended:
            return self._how_it_ended(pump)
        if self._terminal is not None:
            # It said how it ended but does not end: what it said counts, and it will be stopped or left behind.
            return self._said(self._terminal) if at >= self._terminal_due else None
        if at < self._limit_due:  # an event puts its limits off, and begins none that is over already
            return self._interrupt.requested
        return self._interrupt.requested or self._watchdog.broken(at=at)

    def _how_it_ended(self, pump: Pump) -> Ending:
        if pump.error is not None:
            lines = "".join(traceback.format_exception(pump.error))
            _log.error("harness raised:\n%s", self._around.redactor.text(lines), extra=self._log_extra)
            return Failed(code=ErrorCode.HARNESS_CRASHED, detail=f"the harness raised {type(pump.error).__name__}")
        if self._terminal is None:
            return Failed(code=ErrorCode.HARNESS_CRASHED, detail="the harness ended without saying how")
        return self._said(self._terminal)

    def _said(self, terminal: Terminal) -> Terminal:
        if isinstance(terminal, Finished) and terminal.finish_reason not in _REASONS:
            return self._broken_port("finished for a reason that is none of the port's")
        if isinstance(terminal, Finished) and not any(map(_says_something, self.messages)):
            detail = "the agent finished without text, tool call or file"
            return Failed(code=ErrorCode.NO_OUTPUT, detail=detail, cost=terminal.cost)
        return terminal

    def _broken_port(self, what: str) -> Failed:
        _log.error("harness %s", what, extra=self._log_extra)
        return Failed(code=ErrorCode.INTERNAL, detail=f"the harness {what}")

    @property
    def _log_extra(self) -> dict[str, str]:
        return {"run_id": self.request.run_id, "attempt_id": self.request.attempt_id}

    async def _stop(self, pump: Pump) -> None:
        try:
            await pump.stop()
        finally:
            # Also when this very wait was cancelled: nobody else holds the task.
            self._around.abandoned.add(pump.task)


def _is_event(what: object) -> TypeGuard[HarnessEvent]:
    # The set first: to ask for one class after the other takes up to 0.5 µs, for every event.
    return type(what) in _EVENTS or isinstance(what, HarnessEvent)


def _says_something(message: Message) -> bool:
    if message.role != "assistant":
        return False
    for part in message.parts:
        match part.type:
            case "text" if part.content.strip():
                return True
            case "text" | "reasoning":
                pass
            case _:
                return True
    return False
