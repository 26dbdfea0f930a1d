"""The lines of one run, as they come from the sidecar: kept in order, acknowledged as they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agentstream.consumers.harness.pi_protocol import DoneError, DoneLine, EventLine, ToolCallLine
from agentstream.schemas.errors import ErrorCode

ACK_LINES = 64
"""Acknowledged at once. A quarter of the sidecar's window, so that a run in full flow never waits for an ack."""
ACK_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The process ended under a run."""

    return_code: int
    """As the system gives it; −n for signal n."""
    alone: bool
    """Whether no other run was alive in it."""


class Channel:
    """The lines of one run, acknowledged as they are taken. Ends never by itself: `done` or Lost is the last."""

    def __init__(self, run: str, acknowledge: Callable[[str, int], None]) -> None:
        self._run = run
        self._acknowledge = acknowledge
        self._lines: deque[tuple[EventLine | ToolCallLine | DoneLine, int]] = deque()
        self._lost: Lost | None = None
        self._arrived = asyncio.Event()
        self._expected = 1
        self._taken_lines = 0
        self._taken_bytes = 0

    def put(self, line: EventLine | ToolCallLine | DoneLine, size: int) -> bool:
        """Add a line that arrived; False if one is missing before it."""
        in_order = line.n == self._expected
        self._expected = line.n + 1
        self._lines.append((line, size))
        self._arrived.set()
        return in_order

    def refuse(self, detail: str) -> None:
        """The sidecar did not understand what was sent for this run: no `done` will come of itself."""
        error = DoneError(code=ErrorCode.INTERNAL, detail=f"the Pi sidecar refused it: {detail}")
        self.put(DoneLine(run=self._run, n=self._expected, status="failed", error=error), 0)

    def lose(self, lost: Lost) -> None:
        """The process ended; what arrived before is still handed out."""
        self._lost = self._lost or lost
        self._arrived.set()

    async def take(self) -> EventLine | ToolCallLine | DoneLine | Lost:
        """The next line; Lost, again and again, once there are no more. Taking a line acknowledges those before it."""
        while not self._lines:
            if self._lost is not None:
                return self._lost
            self._arrived.clear()
            await self._arrived.wait()
        line, size = self._lines.popleft()
        self._taken_lines += 1
        self._taken_bytes += size
        if self._taken_lines >= ACK_LINES or self._taken_bytes >= ACK_BYTES:
            self._taken_lines = self._taken_bytes = 0
            self._acknowledge(self._run, line.n)
        return line
