"""Runs that were under way when a worker was lost start apart from each other, so that a culprit shows itself alone.

A request that kills its worker takes its neighbours' attempts with it, and all of them get a strike. If they were
started together again, it would take them a second and a third time, and all would reach the crash limit.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count

CRASH_LIMIT = 3
"""After so many crashes a request is failed with `crash_limit` instead of being tried again."""
FIRST_PROBATION_SECONDS = 10.0
"""A run with one strike that lives this long lets the next one start beside it. What kills a worker does so early as a
rule; and after the loss of a node with 64 runs of ten minutes, one at a time to their end would take ten hours."""
UNMARKED_PROBATION_SECONDS = 0.25
"""A run that killed its worker before its started mark was written did so within 100 ms and a transaction."""
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
    """At most one suspect on probation at a time per worker; of those that wait, the one with the shortest goes next.

    In the order of their coming, the first starts of a partition (0.25 s each) waited behind the runs with strikes of
    all others (10 s each): after a kill, a partition that owed 40 short runs showed no result for 32 s.
    """

    def __init__(self) -> None:
        self._occupied = False
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @asynccontextmanager
    async def entered(self, seconds: float | None) -> AsyncIterator[Callable[[], None]]:
        """Wait until no other suspect is on probation. Gives a function to call when the run begins.

        The place is given up `seconds` after that, or at the end of the block. None: there is nothing to wait for.
        """
        if seconds is None:
            yield lambda: None
            return
        await self._take_place(seconds)
        holding = True
        timer: asyncio.TimerHandle | None = None

        def give_up_place() -> None:
            nonlocal holding
            if holding:
                holding = False
                self._give_place_on()

        def begin() -> None:
            nonlocal timer
            if math.isfinite(seconds):
                timer = asyncio.get_running_loop().call_later(seconds, give_up_place)

        try:
            yield begin
        finally:
            if timer is not None:
                timer.cancel()
            give_up_place()

    async def _take_place(self, seconds: float) -> None:
        if not self._occupied:
            self._occupied = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (seconds, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_place_on()
            raise

    def _give_place_on(self) -> None:
        while self._waiting:
            *_, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._occupied = False
