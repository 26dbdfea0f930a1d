"""One run as its caller follows it: events while it runs, and the result.

Patience  how long a caller waits
Outcome   a result that is waited for
Feed      what comes from the two topics about one run: transcript, events not yet taken, outcome
Run       the caller's side of a feed
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from agentstream.consumers.client.buffer import EventBuffer, Voided
from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    ResultExpired,
    ResultUnreadable,
    RunIdTaken,
    RunTimeout,
)
from agentstream.consumers.client.requests import cancel_of
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.consumers.transcript import Transcript
from agentstream.schemas.codec import decode_events, decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import ReadEvent
from agentstream.schemas.records import Record
from agentstream.schemas.requests import CancelRun
from agentstream.schemas.results import InvokeResult

Cancel = Callable[[CancelRun], Awaitable[object]]
LATE_DELTAS_SECONDS = 2.0
"""The result is on another topic, read by another consumer, and may be seen before the last events."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller waits."""

    seconds: float | None
    """From the call to the result; None: for ever."""
    until: float | None
    """The same instant on the loop's clock."""

    @classmethod
    def of(cls, seconds: float | None) -> Self:
        """Patience that begins now. Raises ValueError for none at all."""
        # It was told as `the brokers did not answer within -1 s`. Written so that NaN is refused too.
        if seconds is not None and not seconds > 0:
            raise ValueError(f"`timeout` is {seconds:g} s; it must be above 0, or None to wait for ever")
        return cls(seconds, None if seconds is None else asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def for_the_brokers(self) -> AsyncIterator[None]:
        """Raises BrokerUnavailable if it ends inside."""
        try:
            async with asyncio.timeout_at(self.until):
                yield
        except TimeoutError:
            raise BrokerUnavailable(f"the brokers did not answer within {self.seconds or 0:g} s") from None

    async def for_result(self, outcome: "Outcome", submitted: SubmittedRun) -> InvokeResult:
        """Raises RunTimeout if it ends before the result, and what the outcome failed with."""
        try:
            return await outcome.wait(self.until)
        except TimeoutError:
            raise self.ended(submitted) from None

    def ended(self, submitted: SubmittedRun) -> RunTimeout:
        """What is raised when it has ended."""
        return RunTimeout(submitted, self.seconds or 0.0)


class Outcome:
    """A result that is waited for."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._changed = asyncio.Event()
        self.result: InvokeResult | None = None
        self.error: Exception | None = None

    @property
    def known(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.result is not None or self.error is not None

    def take(self, record: Record) -> None:
        """The result's record. The first counts: it comes again when somebody else waits for an older run."""
        if self.known:
            return
        result = decode_result(record)
        if isinstance(result, Problem):
            self.fail(ResultUnreadable(self.run_id, result))
        else:
            self.result = result
            self.touch()

    def fail(self, error: Exception) -> None:
        """It will never be known, unless it is already."""
        self.error = self.error or error
        self.touch()

    def touch(self) -> None:
        """Something changed: let whoever waits look again."""
        self._changed.set()

    async def change(self, until: float | None) -> None:
        """Wait for the next `touch`. Raises TimeoutError after `until`, of the loop's clock."""
        self._changed.clear()
        async with asyncio.timeout_at(until):
            await self._changed.wait()

    async def wait(self, until: float | None) -> InvokeResult:
        """The result. Raises TimeoutError after `until`, and whatever it failed with."""
        while self.result is None:
            if self.error is not None:
                raise self.error
            await self.change(until)
        return self.result


class Feed:
    """What comes from the two topics about one run. Its functions are called with records, and never wait."""

    def __init__(self, run_id: str, *, max_buffered_bytes: int) -> None:
        self.run_id = run_id
        self.outcome = Outcome(run_id)
        self.transcript = Transcript()
        self.buffer = EventBuffer(max_buffered_bytes)
        self.late_until: float | None = None
        """When iteration ends although events are missing; None before the result."""

    @property
    def over(self) -> bool:
        """Whether no event is to be waited for any more."""
        late = self.late_until is not None and asyncio.get_running_loop().time() >= self.late_until
        return late or self.transcript.rule.complete

    def take_events(self, record: Record) -> None:
        """A delta record. One that cannot be read is a gap in the transcript."""
        events = decode_events(record)
        if isinstance(events, Problem):
            return
        fresh = self.transcript.feed(events)
        if fresh.voided:
            self.buffer.void()
        if fresh.events:
            self.buffer.add(fresh.events, record.size)
            self.outcome.touch()

    def take_result(self, record: Record) -> None:
        """The result's record."""
        self._take_result(record, LATE_DELTAS_SECONDS)

    def take_old_result(self, record: Record) -> None:
        """The record of a result whose deltas came before anybody listened."""
        self._take_result(record, 0.0)

    def _take_result(self, record: Record, seconds_for_deltas: float) -> None:
        self.outcome.take(record)
        if self.outcome.result is not None and self.late_until is None:
            self.late_until = asyncio.get_running_loop().time() + seconds_for_deltas
            if self.transcript.settle(self.outcome.result).voided:
                self.buffer.void()


class Run:
    """A run that is followed. `async for` gives its events: those of the attempt that counts, each once, in order.

    A `Voided` among them says that what was given before is void. Iteration ends with the last event of the attempt
    that the result names, at the latest 2 s after the result. It raises what `result` does; a run that fails is no
    exception. Not for two tasks at once.
    """

    def __init__(self, submitted: SubmittedRun, feed: Feed, patience: Patience, cancel: Cancel) -> None:
        self.submitted = submitted
        self._feed = feed
        self._patience = patience
        self._cancel = cancel

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.submitted.run_id

    @property
    def session_id(self) -> str:
        """The run's session."""
        return self.submitted.session_id

    @property
    def trace_id(self) -> str:
        """The trace that everything about this run belongs to."""
        return self.submitted.trace.trace_id

    @property
    def transcript(self) -> Transcript:
        """The messages as far as they are written: all that was read, also what iteration has not given yet."""
        return self._feed.transcript

    @property
    def lagged(self) -> bool:
        """Whether iteration was too slow and gives no more deltas; what ends still comes with complete values."""
        return self._feed.buffer.lagged

    def __aiter__(self) -> AsyncIterator[ReadEvent | Voided]:
        return self

    async def __anext__(self) -> ReadEvent | Voided:
        feed = self._feed
        while not feed.buffer:
            if feed.outcome.error is not None:
                raise feed.outcome.error
            if feed.over:
                raise StopAsyncIteration
            try:
                await feed.outcome.change(self._patience.until if feed.late_until is None else feed.late_until)
            except TimeoutError:
                if feed.late_until is None:
                    raise self._patience.ended(self.submitted) from None
        return feed.buffer.pop()

    @property
    def over(self) -> bool:
        """Whether the result came, readable or not, or the run is somebody else's: there is nothing left to cancel."""
        outcome = self._feed.outcome
        return outcome.result is not None or isinstance(outcome.error, ResultUnreadable | ResultExpired | RunIdTaken)

    @property
    def known_result(self) -> InvokeResult | None:
        """The result, if it came already."""
        return self._feed.outcome.result

    async def cancel(self, reason: str | None = None, *, requested_by: str | None = None) -> None:
        """Ask for the run to end; returns once the brokers hold that. Then its result comes, as `cancelled`.

        A run that has ended by then is not changed. Raises as sending a request does.
        """
        await self._cancel(cancel_of(self.run_id, reason, requested_by))

    async def result(self) -> InvokeResult:
        """The result, whatever its status.

        Raises RunTimeout, ResultUnreadable or BrokerUnavailable; for a run id of the caller's own also RunIdTaken and
        ResultExpired.
        """
        return await self._patience.for_result(self._feed.outcome, self.submitted)
