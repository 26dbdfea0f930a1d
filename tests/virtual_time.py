"""An event loop whose clock jumps: whatever waits for a time gets it at once, in order, and nothing really sleeps.

Only for code without I/O. When nothing is left that could ever happen the loop raises instead of hanging, so that an
endless wait is a failed test and not a slow one.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import TypeVar

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)


class _Jumping(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and nothing will ever happen")
            self.now += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on made-up time, from 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def now() -> datetime:
    """The wall clock that goes with the running loop."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())


def in_virtual_time(coroutine: Coroutine[object, object, T]) -> T:
    """Run to the end on made-up time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
