"""Runs that were under way when a worker was lost start apart from each other, so that a culprit shows itself alone.

A request that kills its worker takes its neighbours' attempts with it, and all of them get a strike. If they were
started together again, it would take them a second and a third time, and all would reach the crash limit.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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

    Two locks: who has strikes takes both, who has none takes only the first, and a run with two strikes gives that one
    up after three seconds. With a single one, all in the order of their coming, the first starts of each partition
    waited behind everybody else's strikes: after a kill, partitions that owed dozens of short runs showed no result
    for 32 s, and for 65 s where a run of a minute had two strikes.
    """

    def __init__(self) -> None:
        self._first = asyncio.Lock()
        self._with_strikes = asyncio.Lock()

    @asynccontextmanager
    async def entered(self, seconds: float | None) -> AsyncIterator[Callable[[], None]]:
        """Wait until no other suspect is on probation. Gives a function to call when the run begins.

        The place is given up `seconds` after that, or at the end of the block. None: there is nothing to wait for.
        """
        if seconds is None:
            yield lambda: None
        elif seconds < FIRST_PROBATION_SECONDS:
            async with _held(self._first, seconds) as begin:
                yield begin
        else:
            async with (
                _held(self._with_strikes, seconds) as begin_with_strikes,
                _held(self._first, FIRST_PROBATION_SECONDS) as begin_first,
            ):

                def begin() -> None:
                    begin_with_strikes()
                    begin_first()

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
