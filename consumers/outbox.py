"""What is ready to be committed in one partition, and when the next transaction is due."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agentstream.producers.outcomes import Outcome

MAX_BATCH = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
REFUSALS_TO_FALLBACK = 3
"""Twice among others, once alone; from then on it is its fallback."""
CHANGED_SECONDS = 0.1
"""Started marks ride in every commit; alone they force one after this long."""
LEAST_PAUSE_SECONDS = 0.002
MOST_PAUSE_SECONDS = 0.008
"""Between two transactions: half of what the last one took, within these. The brokers complete one for 1 to 2 ms after
they answered its commit, and refuse the next until then. Where everything takes longer a longer pause gathers more
results into each transaction; where nothing else goes on a session would wait in vain for its next run."""


@dataclass(eq=False, slots=True)
class Ready:
    """An outcome that waits for its transaction."""

    outcome: Outcome
    committed: "asyncio.Future[None]"
    ready_at: float
    """On the outbox's clock."""
    refusals: int = 0


@dataclass(eq=False, slots=True)
class Batch:
    """What goes into one transaction."""

    ready: list[Ready] = field(default_factory=list)
    forced: "list[asyncio.Future[None]]" = field(default_factory=list)
    taken_at: float = 0.0
    """On the outbox's clock."""

    @property
    def offsets(self) -> set[int]:
        """The input offsets that this transaction finishes."""
        return {item.outcome.offset for item in self.ready}

    @property
    def refused_as_fallback(self) -> int:
        """How often the brokers have refused even the smallest that it can be."""
        return max(0, min((item.refusals for item in self.ready), default=0) - REFUSALS_TO_FALLBACK)


class Outbox:
    """Collects outcomes for one committer. Made in the loop that it is used in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Kept: on Python 3.11 each look for the running loop makes a system call.
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Ready] = deque()
        self._forced: list[asyncio.Future[None]] = []
        self._expected = 0
        self._changed_at: float | None = None
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._in_flight: Batch | None = None
        self._abandoned = False

    @property
    def waiting(self) -> int:
        """Outcomes that wait for a transaction."""
        return len(self._ready)

    @property
    def uncommitted(self) -> int:
        """Outcomes that wait for a transaction, or are in one."""
        return len(self._ready) + (0 if self._in_flight is None else len(self._in_flight.ready))

    def expect(self) -> None:
        """An outcome is on its way: its transaction can begin. Followed by `arrived`, or by the end of the claim."""
        self._expected += 1
        self._wake.set()

    def arrived(self) -> None:
        """What was expected is put next."""
        self._expected -= 1

    def put(self, outcome: Outcome) -> Ready:
        """Commit this. Its `committed` is done once the transaction was, and cancelled if the claim is lost."""
        item = Ready(outcome, self._promise(), self._clock())
        self._ready.append(item)
        self._wake.set()
        return item

    def force(self) -> "asyncio.Future[None]":
        """Commit now, even if nothing is ready: to prove that we own the partition, or to release it."""
        future = self._promise()
        self._forced.append(future)
        self._wake.set()
        return future

    def _promise(self) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = self._loop.create_future()
        if self._abandoned:
            # A partition that was lost while it was released would wait for its last commit until the time is up.
            future.cancel()
        return future

    def books_changed(self) -> None:
        """A run began: its mark must be on the log soon, so that a crash is counted. Or a hole was passed."""
        if self._changed_at is None:
            self._changed_at = self._clock()
            self._wake.set()

    async def stirring(self) -> bool:
        """Wait until a transaction is due or an outcome is on its way; says whether outcomes will go into it."""
        while not self._expected and not self._due:
            await self._wait()
        return bool(self._expected or self._ready)

    async def due(self) -> Batch:
        """Wait until a transaction is due and take what goes into it."""
        while not self._due:
            await self._wait()
        pause = self._not_before - self._clock()
        if pause > 0:
            await asyncio.sleep(pause)
        return self._take()

    @property
    def _due(self) -> bool:
        return bool(self._ready or self._forced) or (
            self._changed_at is not None and self._clock() >= self._changed_at + CHANGED_SECONDS
        )

    async def _wait(self) -> None:
        delay = None if self._changed_at is None else self._changed_at + CHANGED_SECONDS - self._clock()
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def _take(self) -> Batch:
        batch = Batch(forced=self._forced, taken_at=self._clock())
        self._forced = []
        self._changed_at = None
        size = 0
        while self._ready and len(batch.ready) < MAX_BATCH:
            size += self._ready[0].outcome.size
            if batch.ready and (
                size > MAX_BATCH_BYTES or self._ready[0].refusals >= 2 or batch.ready[-1].refusals >= 2
            ):
                break
            batch.ready.append(self._ready.popleft())
        self._in_flight = batch
        return batch

    def done(self, batch: Batch) -> None:
        """The batch's transaction was committed."""
        self._in_flight = None
        now = self._clock()
        self._not_before = now + min(max((now - batch.taken_at) / 2, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS)
        for future in (*(item.committed for item in batch.ready), *batch.forced):
            if not future.done():
                future.set_result(None)

    def put_back(self, batch: Batch, *, refused: bool) -> None:
        """The batch was not committed. What was refused twice goes alone; refused alone as well, as its fallback.

        Refused even so it goes behind the others, who must not wait for it: only its own session does.
        """
        self._in_flight = None
        if refused:
            if len(batch.ready) == 1 and batch.ready[0].refusals >= 2:
                item = batch.ready[0]
                item.outcome = item.outcome.as_fallback()
            for item in batch.ready:
                item.refusals += 1
        if batch.refused_as_fallback:
            self._ready.extend(batch.ready)
        else:
            self._ready.extendleft(reversed(batch.ready))
        self._forced.extend(batch.forced)
        # The batch took the started marks along; without this a batch of nothing else would never be tried again.
        self.books_changed()
        self._wake.set()

    def abandon(self) -> None:
        """The claim is lost: nobody waits any longer, and nobody will."""
        self._abandoned = True
        batch = self._in_flight or Batch()
        for future in (*(item.committed for item in (*batch.ready, *self._ready)), *batch.forced, *self._forced):
            future.cancel()
        self._ready.clear()
        self._forced.clear()
