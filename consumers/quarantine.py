"""Runs that were under way when a worker was lost start apart from each other, so that a culprit shows itself alone.

A request that kills its worker takes its neighbours' attempts with it, and all of them get a strike. If they were
started together again, it would take them a second and a third time, and all would reach the crash limit.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from itertools import pairwise
from typing import Final

CRASH_LIMIT = 3
"""After so many crashes a request is failed with `crash_limit` instead of being tried again."""
FIRST_PROBATION_SECONDS = 3.0
"""A run with one strike that lives this long lets the next one start beside it. What kills a worker does so early as a
rule. After the loss of a node with 64 runs of ten minutes, one at a time to their end would take ten hours, and ten
seconds for each eleven minutes: under a kill every seven seconds a fleet with a backlog fell to a tenth of its pace."""
UNMARKED_PROBATION_SECONDS = 0.25
"""A run that killed its worker before its started mark was written did so within 100 ms and a transaction."""
ALL_BEGUN_SECONDS: Final = 30.0
"""The more suspects wait, the shorter is each one's probation, so that all of them have begun after about so long.
In a fleet that lost a worker every 25 s six runs of a minute had two strikes in one worker, and went one at a time to
their ends: their sessions filled the intake, whole partitions stood still for three minutes, and each further loss put
strikes on more runs than were let in meanwhile. So many strikes are not one culprit's doing."""
LEAST_WITH_TWO_SECONDS: Final = 3.0
"""Of the probation with two strikes, however many wait."""
UNMARKED_STARTS = 16
"""So many of the first starts after a loss are suspected of it: at 64 runs a second about 7 are unmarked at a time."""


def probation(strikes: int, *, unmarked_start: bool) -> float | None:
    """How long a run must live before another suspect may start beside it; None: it is no suspect."""
    if strikes >= 2:
        return math.inf
    if strikes == 1:
        return FIRST_PROBATION_SECONDS
    return UNMARKED_PROBATION_SECONDS if unmarked_start else None


class Quarantine:
    """At most one suspect on probation at a time per worker.

    Three gates, one inside the other: with two strikes a run passes all of them, with one the inner two, with none the
    innermost. It keeps the outermost of its own for its probation, and gives the others up after three seconds: who has
    fewer strikes waits no longer for one who has more. With a single gate partitions that owed dozens of short runs
    showed no result for 32 s after a kill, and for 65 s where a run of a minute had two strikes; with two, one for all
    who have any, 250 s in a fleet with a backlog, where most sessions waited behind runs of a minute with two.
    """

    def __init__(self) -> None:
        self._anybody = _Gate(UNMARKED_PROBATION_SECONDS)
        self._with_one = _Gate(UNMARKED_PROBATION_SECONDS)
        self._with_two = _Gate(LEAST_WITH_TWO_SECONDS)

    def entered(self, seconds: float | None) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Wait until no other suspect is on probation. Gives a function to call when the run begins.

        The place is given up `seconds` after that at the latest, sooner if many wait, or at the end of the block.
        None: there is nothing to wait for.
        """
        # Nearly every run is no suspect, and a generator of its own would cost each of them 3 µs.
        return nullcontext(_nothing) if seconds is None else self._let_in(seconds)

    @asynccontextmanager
    async def _let_in(self, seconds: float) -> AsyncIterator[Callable[[], None]]:
        gates = [self._anybody]
        if seconds >= FIRST_PROBATION_SECONDS:
            gates.insert(0, self._with_one)
        if math.isinf(seconds):
            gates.insert(0, self._with_two)
        async with AsyncExitStack() as stack:
            stays = [
                await stack.enter_async_context(gate.entered(seconds if gate is gates[0] else FIRST_PROBATION_SECONDS))
                for gate in gates
            ]

            def begin() -> None:
                for outer, inner in pairwise(stays):
                    outer.afterwards = inner.give_up
                for stay in stays:
                    stay.begin()

            yield begin


class _Gate:
    """One stays inside at a time, and is hurried by those who wait."""

    def __init__(self, least: float) -> None:
        """`least`: the seconds of probation that are left to each however many wait."""
        self.least = least
        self.lock = asyncio.Lock()
        self.crowd = 0
        """The most who waited at once since nobody did."""
        self._waiting = 0
        self._inside: _Stay | None = None

    @asynccontextmanager
    async def entered(self, seconds: float) -> AsyncIterator["_Stay"]:
        """Wait for the place, and give it up at the end of the block at the latest."""
        self._waiting += 1
        self.crowd = max(self.crowd, self._waiting)
        if self._inside is not None:
            self._inside.hurry()
        try:
            await self.lock.acquire()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.crowd = 0
        stay = self._inside = _Stay(self, seconds)
        try:
            yield stay
        finally:
            stay.give_up()


class _Stay:
    """Somebody inside a gate. His probation is counted from `begin`."""

    def __init__(self, gate: _Gate, seconds: float) -> None:
        self.afterwards: Callable[[], None] = _nothing
        """Called once the place is given up."""
        self._gate = gate
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._holds = True

    def begin(self) -> None:
        """The run begins."""
        self._began = self._loop.time()
        self.hurry()

    def hurry(self) -> None:
        """Set the end of the probation by how many wait."""
        if self._began is None or not self._holds:
            return
        seconds = self._seconds
        if self._gate.crowd:
            seconds = min(seconds, max(self._gate.least, ALL_BEGUN_SECONDS / self._gate.crowd))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._began + seconds, self.give_up) if math.isfinite(seconds) else None

    def give_up(self) -> None:
        """Let the next one in. Does nothing the second time."""
        if not self._holds:
            return
        self._holds = False
        if self._timer is not None:
            self._timer.cancel()
        self._gate.lock.release()
        self.afterwards()


def _nothing() -> None:
    """There is nothing to do."""
