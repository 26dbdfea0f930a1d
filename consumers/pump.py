"""Runs a harness in a task of its own, so that one which ignores its cancellation can be left behind."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import datetime
from math import inf
from typing import Final

_log = logging.getLogger(__name__)

QUEUE_EVENTS: Final = 64
"""So many events wait for the run's loop; then the harness waits. Enough that a slow publish costs no wake-ups."""
STOP_SECONDS: Final = 2.0
"""The harness port's promise: a cancelled run ends within two seconds."""


class Bell:
    """Wakes one waiter, when it is rung or when it is time. Rung while nobody waits, it is remembered."""

    __slots__ = ("_loop", "_rung", "_timer", "_waiter")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it is waited for, asked for once: on Python 3.11 each time is a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        if self._rung:
            return
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float = inf) -> None:
        """Wait for the bell, or until the loop's clock says so. It may be rung too early: look, and wait again."""
        if not self._rung:
            loop = self.loop
            self._set_timer(loop, until)
            self._waiter = loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._rung = False

    def stop(self) -> None:
        """Take back the timer: nobody will wait any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        """One that is due earlier stays: each event puts a run's limits off, and a timer for each event cost more than
        one that rings for nothing now and then."""
        if self._timer is None or self._timer.when() > until:
            self.stop()
            self._timer = loop.call_at(until, self._on_time) if until < inf else None

    def _on_time(self) -> None:
        self._timer = None
        self.ring()


Came = tuple[object, datetime]
"""What the harness yielded, as it came (a broken one may yield anything), and when, by the wall clock."""


class Pump:
    """One harness run in its own task, behind a small queue."""

    def __init__(
        self, start: Callable[[], AsyncIterator[object]], *, name: str, bell: Bell, now: Callable[[], datetime]
    ) -> None:
        """Starts at once. The bell rings for everything that comes and for the end."""
        self._start = start
        self._came: list[Came] = []
        self._room = Bell()
        self._bell = bell
        self._now = now
        self._stopping = False
        self._raised: Exception | None = None
        self.begun = False
        """Whether the harness has had its first turn."""
        self.task = bell.loop.create_task(self._run(), name=name)

    @property
    def ended(self) -> bool:
        """Whether the harness is done and everything it yielded was taken."""
        return not self._came and self.task.done()

    @property
    def error(self) -> BaseException | None:
        """What the harness raised, once it is done."""
        return asyncio.CancelledError() if self.task.cancelled() else self._raised or self.task.exception()

    def take(self) -> Sequence[Came]:
        """All that came since the last time, in order."""
        came = self._came
        if came:
            self._came = []
            self._room.ring()
        return came

    async def stop(self) -> bool:
        """Cancel the harness and wait two seconds at most. Whether it ended; whatever it raised is in `error`."""
        self._stopping = True
        self.task.cancel()
        await asyncio.wait([self.task], timeout=STOP_SECONDS)
        return self.task.done()

    async def _run(self) -> None:
        self.begun = True
        try:
            await self._listen(self._start())
        except Exception as error:  # noqa: BLE001 - whatever it is, the attempt has to tell of it
            self._raised = error
        finally:
            # Whoever it wakes finds the task done: nothing is awaited from here on.
            self._bell.ring()

    async def _listen(self, events: AsyncIterator[object]) -> None:
        try:
            async for event in events:
                # One that swallows its cancellation and goes on is not listened to.
                if self._stopping:
                    return
                came = (event, self._now())
                while len(self._came) >= QUEUE_EVENTS:
                    await self._room.wait()
                self._came.append(came)
                self._bell.ring()
        finally:
            # Cancelled while the queue was full, the generator stands at its `yield` and knows of nothing.
            if isinstance(events, AsyncGenerator):
                await events.aclose()


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
