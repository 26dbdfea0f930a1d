"""Runs a harness in a task of its own, so that one which ignores its cancellation can be left behind."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_log = logging.getLogger(__name__)

QUEUE_EVENTS: Final = 64
"""So many events wait for the run's loop; then the harness waits. Enough that a slow publish costs no wake-ups."""
STOP_SECONDS: Final = 2.0
"""The harness port's promise: a cancelled run ends within two seconds."""


class Bell:
    """Wakes one waiter. Rung while nobody waits, it is remembered."""

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float) -> None:
        """Wait for the bell, or until the loop's clock says so (infinity: only for the bell)."""
        loop = asyncio.get_running_loop()
        if not self._rung:
            self._waiter = loop.create_future()
            timer = loop.call_at(until, self.ring) if until != float("inf") else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._rung = False


@dataclass(frozen=True, slots=True)
class Pumped:
    """What the harness yielded, and when."""

    event: object
    """As it came: a broken harness may yield anything."""
    time: datetime
    """When it came, wall clock."""


class Pump:
    """One harness run in its own task, behind a small queue."""

    def __init__(
        self, start: Callable[[], AsyncIterator[object]], *, name: str, bell: Bell, now: Callable[[], datetime]
    ) -> None:
        """Starts at once. The bell rings for everything that comes and for the end."""
        self._start = start
        self._queue: asyncio.Queue[Pumped] = asyncio.Queue(QUEUE_EVENTS)
        self._bell = bell
        self._now = now
        self._stopping = False
        self.task = asyncio.create_task(self._run(), name=name)
        self.task.add_done_callback(self._on_done)

    @property
    def ended(self) -> bool:
        """Whether the harness is done and everything it yielded was taken."""
        return self.task.done() and self._queue.empty()

    @property
    def error(self) -> BaseException | None:
        """What the harness raised, once it is done."""
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    def take(self) -> Pumped | None:
        """The next event, or None where none waits."""
        return None if self._queue.empty() else self._queue.get_nowait()

    async def stop(self) -> bool:
        """Cancel the harness and wait two seconds at most. Whether it ended; whatever it raised is in `error`."""
        self._stopping = True
        self.task.cancel()
        await asyncio.wait([self.task], timeout=STOP_SECONDS)
        return self.task.done()

    async def _run(self) -> None:
        events = self._start()
        try:
            async for event in events:
                # One that swallows its cancellation and goes on is not listened to.
                if self._stopping:
                    return
                await self._queue.put(Pumped(event, self._now()))
                self._bell.ring()
        finally:
            # Cancelled while the queue was full, the generator stands at its `yield` and knows of nothing.
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen, or asyncio complains about it when an abandoned one ends
        self._bell.ring()


class Abandoned:
    """Harness runs that did not end within two seconds of their cancellation. Held, or they are collected alive."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it ends by itself."""
        if not task.done():
            _log.error("harness run left behind: it ignores its cancellation", extra={"task": task.get_name()})
            self._tasks.add(task)
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _log.info("harness run that was left behind has ended", extra={"task": task.get_name()})
