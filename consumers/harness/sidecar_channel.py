"""The lines of one run, as they come from the sidecar: kept in order, acknowledged as they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentstream.consumers.harness.pi_protocol import DoneError, DoneLine, EventLine, RunOutput, ToolCallLine
from agentstream.schemas.errors import ErrorCode

ACK_LINES = 64
"""Acknowledged at once. A quarter of the sidecar's window, so that a run in full flow never waits for an ack."""
ACK_BYTES = 1024 * 1024
_NOTHING_NEW: Final = frozenset({"part.ended", "message.ended", "turn.ended"})
"""Types of events that repeat what was shown before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The process ended under a run."""

    return_code: int
    """As the system gives it; −n for signal n."""
    alone: bool
    """Whether no other run was alive in it."""


class Channel:
    """The lines of one run, acknowledged as they are taken. Ends never by itself: `done` or Lost is the last.

    `done` is handed out once it is confirmed, since a process that says ok and exits with 3 has failed. What comes
    right before it and shows nothing new is handed out with it: with 64 runs at once the confirmation takes 25 ms, in
    which it went to the readers in a record of its own, one in four of all.
    """

    __slots__ = (
        "_acknowledge",
        "_expected",
        "_held",
        "_lines",
        "_loop",
        "_lost",
        "_run",
        "_taken_bytes",
        "_taken_lines",
        "_waiter",
    )

    def __init__(self, run: str, acknowledge: Callable[[str, int], None], loop: asyncio.AbstractEventLoop) -> None:
        self._run = run
        self._acknowledge = acknowledge
        self._loop = loop
        self._lines: deque[tuple[RunOutput, int]] = deque()
        self._held: list[tuple[RunOutput, int]] = []  # the newest first: `done`, if it has come
        self._lost: Lost | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._expected = 1
        self._taken_lines = 0
        self._taken_bytes = 0

    def put(self, line: EventLine | ToolCallLine, size: int) -> bool:
        """Add a line that arrived; False if one is missing before it."""
        number = line.n
        in_order = number == self._expected
        self._expected = number + 1
        self._lines.append((line, size))
        if self._waiter is not None:
            self._wake()
        return in_order

    def finish(self, done: DoneLine) -> bool:
        """Add the last line, to be confirmed; False if one is missing before it."""
        in_order = done.n == self._expected
        self._expected = done.n + 1
        self._held = [(done, 0)]
        while self._lines and _shows_nothing_new(self._lines[-1][0]):
            self._held.append(self._lines.pop())
        return in_order

    def confirm(self) -> None:
        """The process lived on after `done`, if it still lives."""
        self._lines.extend(reversed(self._held))
        self._held = []
        self._wake()

    def refuse(self, detail: str) -> None:
        """The sidecar did not understand what was sent for this run: no `done` will come of itself."""
        error = DoneError(code=ErrorCode.INTERNAL, detail=f"the Pi sidecar refused it: {detail}")
        self.finish(DoneLine(run=self._run, n=self._expected, status="failed", error=error))

    def lose(self, lost: Lost) -> None:
        """The process ended; what arrived before is still handed out, and `done` only if it ended well."""
        if lost.return_code != 0:
            self._held = self._held[1:]
        self.confirm()
        self._lost = self._lost or lost

    def take(self) -> RunOutput | Lost | None:
        """The next line, and an acknowledgement of those before it. Where there is none, Lost if it is, else None."""
        if not self._lines:
            return self._lost
        line, size = self._lines.popleft()
        self._taken_lines += 1
        self._taken_bytes += size
        if self._taken_lines >= ACK_LINES or self._taken_bytes >= ACK_BYTES:
            self._taken_lines = self._taken_bytes = 0
            self._acknowledge(self._run, line.n)
        return line

    async def arrival(self) -> None:
        """Return when there is something to take. For one caller at a time."""
        while not self._lines and self._lost is None:
            # One waiter needs no `asyncio.Event`, which keeps a queue of them.
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        # Once is enough: most lines come with others of the same run.
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _shows_nothing_new(line: RunOutput) -> bool:
    return line.type == "event" and line.event.type in _NOTHING_NEW
