"""What reached one place and what did not: books, kept in memory and in order, told in one line per change.

Plain and thread-safe: spans are ended on the event loop, exported in threads of their own, and read by the HTTP port.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

log = logging.getLogger(__name__)
CALM_SECONDS = 10.0
"""Without a loss for so long, the next success ends a disturbance. A collector that failed every other export would
else have two lines in the log per batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Counts since the start, of spans or of data points."""

    exported: int = 0
    """Taken by the other side."""
    failed: int = 0
    """Sent, and refused or not answered."""
    dropped: int = 0
    """Never sent: the queue was full, or the process ended."""

    @property
    def lost(self) -> int:
        """All that did not arrive."""
        return self.failed + self.dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """How much may wait and be under way."""

    count: int
    """So many."""
    size: int
    """So many bytes."""


NO_ROOM = Room(count=0, size=0)


class Delivery:
    """The books of one exporter."""

    def __init__(
        self,
        name: str,
        what: str,
        where: str,
        *,
        room: Room = NO_ROOM,
        calm_s: float = CALM_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` of the exporter; `what` it carries, a plural; `where` to, without secrets.

        `room` of its queue, if it has one.
        """
        self.name = name
        self.where = where
        self.capacity = room.count
        self._max_bytes = room.size
        # Worked out once: a collector that hangs has each span dropped.
        self._too_many = f"more than {room.count:,} wait"
        self._too_large = f"more than {room.size:,} bytes wait"
        self._what = what
        self._calm_s = calm_s
        self._clock = clock
        self._lock = threading.Lock()
        self.is_full = False
        """Whether there is no room for one more, however small."""
        self._pending = self._held_bytes = 0
        self._exported = self._failed = self._dropped = self._unsent = 0
        self._closed = False
        self._losing: str | None = None
        self._lost_before = 0
        self._lost_at = float("-inf")
        self._arrived_at: float | None = None

    @property
    def losses(self) -> Losses:
        """The counts."""
        with self._lock:
            return Losses(exported=self._exported, failed=self._failed, dropped=self._dropped)

    @property
    def losing(self) -> bool:
        """Whether what was sent last did not arrive."""
        return self._losing is not None

    @property
    def pending(self) -> int:
        """How many wait or are under way."""
        return self._pending

    def drop(self, count: int) -> None:
        """So many are dropped, since it is full."""
        with self._lock:
            self._dropped += count
            if self._closed:
                self._unsent += count
                return
            line = self._lost(self._too_many)
        _say(line)

    def admit(self, size: int) -> bool:
        """Make room for one of so many bytes; False if there is none: it is dropped, and counted."""
        with self._lock:
            if self._closed:
                self._dropped += 1
                self._unsent += 1
                return False
            if self._pending < self.capacity and self._held_bytes + size <= self._max_bytes:
                self._pending += 1
                self._held_bytes += size
                self.is_full = self._pending == self.capacity
                return True
            self._dropped += 1
            line = self._lost(self._too_many if self._pending >= self.capacity else self._too_large)
        _say(line)
        return False

    def arrived(self, count: int, size: int = 0, *, rejected: int = 0) -> None:
        """An export of so many, and so many bytes, was answered; `rejected`: how many the other side did not take."""
        with self._lock:
            if self._closed:
                return
            self._leave(count, size)
            self._exported += count - rejected
            self._failed += rejected
            self._arrived_at = self._clock()
            line = self._lost("some are rejected") if rejected else self._found_again()
        _say(line)

    def failed(self, count: int, reason: str, size: int = 0) -> None:
        """An export was given up; `reason` without secrets."""
        with self._lock:
            if self._closed:
                return
            self._leave(count, size)
            self._failed += count
            line = self._lost(reason)
        _say(line)

    def abandon(self) -> None:
        """The process ends: what still waits is dropped, and what is said of it later changes nothing."""
        with self._lock:
            self._closed = True
            self._dropped += self._pending
            self._unsent += self._pending
            self._pending = self._held_bytes = 0
            self.is_full = False

    def last_line(self) -> str | None:
        """All that was lost since the start, if no line told the end of it. For when the process ends."""
        with self._lock:
            lost, full = self._failed + self._dropped, self._dropped - self._unsent
            if lost == self._lost_before:
                return None
            return (
                f"{self._what} are lost on the way to {self.where}: {lost:,} of {lost + self._exported:,} since the "
                f"start (refused or not answered: {self._failed:,}, no room to wait: {full:,}, "
                f"not sent before the end: {self._unsent:,})"
            )

    def state(self) -> dict[str, JsonValue]:
        """As it is shown to people."""
        with self._lock:
            return {
                "to": self.where,
                "losing": self._losing,
                "pending": self._pending,
                "exported": self._exported,
                "failed": self._failed,
                "dropped": self._dropped,
                "last_success_s_ago": (
                    None if self._arrived_at is None else round(self._clock() - self._arrived_at, 1)
                ),
            }

    def _leave(self, count: int, size: int) -> None:
        """Measurements never waited."""
        self._pending = max(0, self._pending - count)
        self.is_full = self._pending >= self.capacity > 0
        self._held_bytes = max(0, self._held_bytes - size)

    def _lost(self, reason: str) -> tuple[int, str] | None:
        began, self._losing, self._lost_at = self._losing is None, reason, self._clock()
        if not began:
            return None
        return logging.WARNING, f"{self._what} are lost on the way to {self.where}: {reason}; runs are not affected"

    def _found_again(self) -> tuple[int, str] | None:
        if self._losing is None or self._clock() - self._lost_at < self._calm_s:
            return None
        lost = self._failed + self._dropped
        since, self._lost_before, self._losing = lost - self._lost_before, lost, None
        return logging.INFO, f"{self._what} reach {self.where} again; {since:,} were lost meanwhile"


def _say(line: tuple[int, str] | None) -> None:
    """Outside the lock: a log that blocks must not hold up the event loop more than it does anyway."""
    if line is not None:
        log.log(*line)
