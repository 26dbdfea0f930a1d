"""Am I still a member? Asked before anything that could fence another owner, and after a gap in our own time.

A worker that was stopped (SIGSTOP, a paused VM) and wakes does not know that its partitions have gone. If it fenced
their new owner at once, the live one would lose its runs to a zombie.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from agentstream.consumers.coordinator import CoordinatorError, GroupCoordinator, Standing

log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.2


def boot_time() -> float:
    """Seconds since boot, time asleep included where the system tells: CLOCK_MONOTONIC stops with a suspended VM."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Membership:
    """What is known of this worker's place in the group."""

    def __init__(
        self,
        coordinator: GroupCoordinator,
        identity: Callable[[], tuple[int, str]],
        *,
        session_timeout_s: float,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._coordinator = coordinator
        self._identity = identity
        # The group counts from the last heartbeat it got, which may be an interval and a delay older than the gap: a
        # worker stopped for 1.9 s of a session of 2 was replaced, and woke without a doubt. A heartbeat costs nothing.
        self._longest_gap = session_timeout_s / 2
        self._clock = clock
        self._last_tick = clock()
        self._doubted = False
        self._changed = asyncio.Event()
        self._confirming: asyncio.Task[None] | None = None
        self.gaps = 0

    def tick(self) -> None:
        """The event loop is alive. Called by the poll loop, at least every half second."""
        now = self._clock()
        if now - self._last_tick > self._longest_gap:
            log.warning("nothing ran here for %.1f s: holding new runs until the group answers", now - self._last_tick)
            self._doubted = True
            self.gaps += 1
        self._last_tick = now

    def assignment_changed(self) -> None:
        """A rebalance ended: whoever waits for one asks again."""
        self._changed.set()

    async def before_a_run(self) -> None:
        """Returns at once, unless there was a gap: then after a heartbeat was answered."""
        self.tick()
        while self._doubted:
            if self._confirming is None or self._confirming.done():
                self._confirming = asyncio.create_task(self._confirm_after_gap(), name="confirm membership")
            await asyncio.shield(self._confirming)

    async def _confirm_after_gap(self) -> None:
        await self.confirmed()
        self._doubted = False

    async def close(self) -> None:
        """Ask no more: a worker that stopped while it doubted its membership would go on asking for ever."""
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.wait([self._confirming])

    async def confirmed(self) -> None:
        """Wait until a heartbeat for our generation and member was answered without error.

        While the group rebalances, waits for the assignment. Without an answer asks again, for as long as it takes:
        to fence somebody on a guess is worse than to wait.
        """
        while not await self._is_member():
            pass

    async def _is_member(self) -> bool:
        self._changed.clear()
        generation, member_id = self._identity()
        standing = Standing.REBALANCING
        if generation >= 0 and member_id:
            try:
                standing = await self._coordinator.standing(generation, member_id)
            except CoordinatorError as error:
                log.info("membership unknown: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
                return False
        if standing is Standing.MEMBER:
            return self._identity() == (generation, member_id)
        # 25 and 22 may also mean that the assignment is already newer than our question: look again after a second.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._changed.wait()
        return False
