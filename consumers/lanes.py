"""Lanes: runs of one session in order, sessions side by side.

One lane per session with work. A lane is a queue and one task that works it off; when the queue is empty both go.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Lanes:
    """The lanes of one input partition under one claim. All tasks live in the given group.

    An exception in a piece of work is a bug of ours: it ends the group, and with it the worker.
    """

    def __init__(self, group: asyncio.TaskGroup, name: str) -> None:
        self._group = group
        self._task_name = f"lane {name}"
        self._queues: dict[str, deque[Work]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def count(self) -> int:
        """Lanes with work: sessions."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Pieces of work that have not begun."""
        return sum(len(queue) for queue in self._queues.values())

    def submit(self, session_id: str, work: Work) -> None:
        """Do this after everything submitted before for the same session."""
        queue = self._queues.get(session_id)
        if queue is not None:
            queue.append(work)
            return
        queue = self._queues[session_id] = deque((work,))
        self._idle.clear()
        self._tasks[session_id] = self._group.create_task(self._work_off(session_id, queue), name=self._task_name)

    def discard_waiting(self) -> None:
        """Forget all work that has not begun."""
        for queue in self._queues.values():
            queue.clear()

    async def drained(self) -> None:
        """Wait until no lane has work."""
        await self._idle.wait()

    async def cancel(self) -> None:
        """End all lanes now and wait until they have ended."""
        self.discard_waiting()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # A task that was cancelled before its first step never came to its `finally`.
        self._queues.clear()
        self._tasks.clear()
        self._idle.set()

    async def _work_off(self, session_id: str, queue: deque[Work]) -> None:
        try:
            while queue:
                await queue.popleft()()
        finally:
            del self._queues[session_id]
            del self._tasks[session_id]
            if not self._tasks:
                self._idle.set()
