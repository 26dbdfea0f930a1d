"""Events between the log and a caller who may be slow. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agentstream.schemas.events import PartDelta, ReadEvent, RunAlive, ToolProgressed

MAX_BUFFERED_BYTES = 4 * 1024 * 1024
_DROPPABLE = (PartDelta, ToolProgressed, RunAlive)


@dataclass(frozen=True, slots=True)
class Voided:
    """Not an event of the log: what was given of this run before is void. Another attempt counts from here."""


class EventBuffer:
    """What one caller has not yet taken of one run, at most `limit` bytes of it.

    A caller who falls behind by more is `lagged`: deltas of this run are no longer kept, and where that does not
    suffice the oldest events go; the newest one stays. What ends (parts, messages, tools) carries complete values, and
    the result everything.
    """

    def __init__(self, limit: int = MAX_BUFFERED_BYTES) -> None:
        self._limit = limit
        self._events: deque[tuple[ReadEvent, int]] = deque()
        self._bytes = 0
        self._shown = False
        self._voided = False
        self.lagged = False

    def __len__(self) -> int:
        return len(self._events) + self._voided

    def add(self, events: Sequence[ReadEvent], size: int) -> None:
        """Keep events that came as `size` bytes together."""
        for event in events:
            if not (self.lagged and isinstance(event, _DROPPABLE)):
                self._events.append((event, size // len(events)))
                self._bytes += size // len(events)
        if self._bytes > self._limit and not self.lagged:
            self.lagged = True
            self._events = deque(kept for kept in self._events if not isinstance(kept[0], _DROPPABLE))
            self._bytes = sum(cost for _, cost in self._events)
        while self._bytes > self._limit and len(self._events) > 1:
            self._bytes -= self._events.popleft()[1]

    def void(self) -> None:
        """Forget what waits; if some was taken already, say so."""
        self._events.clear()
        self._bytes = 0
        self._voided = self._voided or self._shown
        self._shown = False

    def pop(self) -> ReadEvent | Voided:
        """The oldest event. Raises IndexError if there is none."""
        if self._voided:
            self._voided = False
            return Voided()
        event, cost = self._events.popleft()
        self._bytes -= cost
        self._shown = True
        return event
