"""Runs that were under way when a worker was lost start apart from each other, so that a culprit shows itself alone.

A request that kills its worker takes its neighbours' attempts with it, and all of them get a strike. If they were
started together again, it would take them a second and a third time, and all would reach the crash limit.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

CRASH_LIMIT = 3
"""After so many crashes a request is failed with `crash_limit` instead of being tried again."""
FIRST_PROBATION_SECONDS = 3.0
"""A run with one strike that lives this long lets the next one start beside it. What kills a worker does so early as a
rule. After the loss of a node with 64 runs of ten minutes, one at a time to their end would take ten hours, and ten
seconds for each eleven minutes: under a kill every seven seconds a fleet with a backlog fell to a tenth of its pace."""
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
    """At most one suspect on probation at a time per worker.

    Three locks, one inside the other: with two strikes a run takes all of them, with one the inner two, with none the
    innermost. It keeps the outermost of its own for its probation, and gives the others up after three seconds: who has
    fewer strikes waits no longer for one who has more. With a single lock partitions that owed dozens of short runs
    showed no result for 32 s after a kill, and for 65 s where a run of a minute had two strikes; with two, one for all
    who have any, 250 s in a fleet with a backlog, where most sessions waited behind runs of a minute with two.
    """

    def __init__(self) -> None:
        self._anybody = asyncio.Lock()
        self._with_one = asyncio.Lock()
        self._with_two = asyncio.Lock()

    @asynccontextmanager
    async def entered(self, seconds: float | None) -> AsyncIterator[Callable[[], None]]:
        """Wait until no other suspect is on probation. Gives a function to call when the run begins.

        The place is given up `seconds` after that, or at the end of the block. None: there is nothing to wait for.
        """
        if seconds is None:
            yield lambda: None
            return
        locks = [self._anybody]
        if seconds >= FIRST_PROBATION_SECONDS:
            locks.insert(0, self._with_one)
        if math.isinf(seconds):
            locks.insert(0, self._with_two)
        async with AsyncExitStack() as stack:
            begins = [
                await stack.enter_async_context(_held(lock, seconds if lock is locks[0] else FIRST_PROBATION_SECONDS))
                for lock in locks
            ]

            def begin() -> None:
                for each in begins:
                    each()

            yield begin


@asynccontextmanager
async def _held(lock: asyncio.Lock, seconds: float) -> AsyncIterator[Callable[[], None]]:
    """Hold the lock until `seconds` after the function given was called, or the end of the block."""
    await lock.acquire()
    holding = True
    timer: asyncio.TimerHandle | None = None

    def give_up() -> None:
        nonlocal holding
        if holding:
            holding = False
            lock.release()

    def begin() -> None:
        nonlocal timer
        if math.isfinite(seconds):
            timer = asyncio.get_running_loop().call_later(seconds, give_up)

    try:
        yield begin
    finally:
        if timer is not None:
            timer.cancel()
        give_up()
