"""Several event loops on one made-up clock, so that one of them can stand still while the others go on.

A loop that is not run is a process under SIGSTOP: when it is run again all its timers are overdue, as they are there.
"""

import asyncio
import math
import selectors
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds."""

    now: float = 0.0


class _Idle(selectors.DefaultSelector):
    """Ends `run_forever` as soon as a loop has nothing to do now, and notes when it will have."""

    loop: "PuppetLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.loop.due = math.inf if timeout is None else self.loop.clock.now + timeout
            self.loop.stop()
        return []


class PuppetLoop(asyncio.SelectorEventLoop):
    """A loop that is run piecemeal, on somebody else's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.due = 0.0
        idle = _Idle()
        idle.loop = self
        super().__init__(idle)

    def time(self) -> float:
        return self.clock.now

    def run_until_idle(self) -> None:
        """Do all that is due now; `due` is then when there is something to do again."""
        self.run_forever()

    def end(self) -> None:
        """Cancel every task and close, on a clock of its own: nobody waits for a process that was killed."""
        self.clock = Clock(self.clock.now)
        for _ in range(1_000):
            if not (tasks := asyncio.all_tasks(self)):
                break
            for task in tasks:
                task.cancel()
            self.run_until_idle()
            if math.isfinite(self.due):
                self.clock.now = max(self.clock.now, self.due)
        else:
            raise AssertionError(f"these tasks do not end: {asyncio.all_tasks(self)}")
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()
