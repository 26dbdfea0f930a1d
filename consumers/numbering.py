"""From a harness's events to numbered records for the delta topic: filter, redact, cut, merge, and number last.

Plain and synchronous; time is passed in. The first event of an attempt and the first token of a part go at once,
later ones wait up to 25 ms or 4 KiB for company, so that a fast model costs dozens of records a second, not thousands.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agentstream.consumers.redaction import Redactor, StreamRedactor
from agentstream.consumers.truncation import MAX_EVENT_BYTES, cut, pieces, texts_of_small, with_short
from agentstream.schemas.events import AnyEvent, PartDelta, StreamEvents
from agentstream.schemas.requests import StreamMode

LINGER_SECONDS: Final = 0.025
"""How long an event waits for company."""
END_LINGER_SECONDS: Final = 0.005
"""After the end of a part, tool, message or turn: they come in bunches, and a reader waits for them."""
FLUSH_BYTES: Final = 4_096
"""So much does not wait any longer."""
MAX_RECORD_BYTES: Final = 6 * FLUSH_BYTES + MAX_EVENT_BYTES + 32_768
"""No record is larger: what waited, then one event, and the frame around them. Far below any topic's limit."""

_DELTA_BYTES: Final = 160
"""About what a delta takes beside its text."""
_ALWAYS: Final = frozenset({"run.started", "run.retrying", "run.ended"})
"""Types that every caller gets, and that wait for nothing."""
_ENDS: Final = frozenset({"part.ended", "message.ended", "tool.ended", "turn.ended"})
_LINGER: Final = {**dict.fromkeys(_ALWAYS, 0.0), **dict.fromkeys(_ENDS, END_LINGER_SECONDS)}
"""By type: how long an event waits, if not as long as others."""
_PartKey = tuple[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptName:
    """What tells one attempt from all others."""

    run_id: str
    """The run."""
    session_id: str
    """The run's session."""
    claim: int
    """The claim it runs under."""
    attempt: int
    """Which attempt within the claim, from 1."""
    attempt_id: str
    """The attempt's uuid7."""


class Numbering:
    """The events of one attempt on their way to the delta topic."""

    def __init__(self, name: AttemptName, *, mode: StreamMode, redactor: Redactor, first_seq: int = 0) -> None:
        self._name = name
        self._mode = mode
        self._redactor = redactor
        self._open: dict[_PartKey, tuple[PartDelta, StreamRedactor]] = {}
        self._begun: set[_PartKey] = set()
        self._pending: list[AnyEvent] = []
        self._pending_bytes = 0
        self._growing: _PartKey | None = None
        self._grown: list[str] = []
        self._next_seq = first_seq
        self.due: float | None = None
        """When `flush` is to be called, on the clock of `add`; None while nothing waits."""

    @property
    def last_seq(self) -> int:
        """`seq` of the last event that was given out; −1, or one below `first_seq`, before the first."""
        return self._next_seq - 1

    def add(self, event: AnyEvent, *, at: float, time: datetime) -> list[StreamEvents]:
        """Take one event that happened `at` (monotonic seconds), and give the records that must go at once."""
        # What the caller does not want is neither redacted nor cut: half the price of a run without events.
        if event.type == "part.delta":
            return self._delta(event, at, time) if self._mode == "full" else []
        if self._mode == "none" and event.type not in _ALWAYS:
            return []
        ready = self._rests(event, at, time) if self._open else []
        small = texts_of_small(event)
        if small is None or self._redactor.found_in_any(small[0]):
            event, size = cut(self._redactor.model(event))
        else:
            size = small[1]
        self._append(event, size, time)
        linger = _LINGER.get(event.type, LINGER_SECONDS)
        if not linger or self._pending_bytes >= FLUSH_BYTES:
            return ready + self.flush()
        if self.due is None or at + linger < self.due:
            self.due = at + linger
        return ready

    def flush(self) -> list[StreamEvents]:
        """All that waits, as at most one record. Ends of texts that may be the start of a secret stay held back."""
        if not self._pending:
            return []
        if self._grown:
            self._grow()
        name, first, events = self._name, self._next_seq, tuple(self._pending)
        self._next_seq += len(events)
        self._pending, self._pending_bytes, self._growing, self.due = [], 0, None, None
        return [
            StreamEvents.of_numbered(
                events,
                run_id=name.run_id,
                session_id=name.session_id,
                claim=name.claim,
                attempt=name.attempt,
                attempt_id=name.attempt_id,
                first_seq=first,
            )
        ]

    def _delta(self, event: PartDelta, at: float, time: datetime) -> list[StreamEvents]:
        key = (event.message_id, event.part_index)
        open_text = self._open.get(key)
        stream = self._redactor.stream() if open_text is None else open_text[1]
        self._open[key] = (event, stream)
        shown = stream.feed(event.delta)
        return self._show(key, event, shown, at, time) if shown else []

    def _rests(self, event: AnyEvent, at: float, time: datetime) -> list[StreamEvents]:
        """The rests of the texts that an event ends: what was held back of them shows before it."""
        ready: list[StreamEvents] = []
        for key in self._ended_by(event):
            last, stream = self._open.pop(key)
            if rest := stream.finish():
                ready += self._show(key, last, rest, at, time)
        return ready

    def _ended_by(self, event: AnyEvent) -> list[_PartKey]:
        match event.type:
            case "part.ended":
                key = (event.message_id, event.part_index)
                return [key] if key in self._open else []
            case "message.ended":
                return [key for key in self._open if key[0] == event.message_id]
            case "run.ended" | "run.retrying":
                return list(self._open)
            case _:
                return []

    def _show(self, key: _PartKey, event: PartDelta, shown: str, at: float, time: datetime) -> list[StreamEvents]:
        """A text that is safe to show, of the part that a delta is of."""
        ready: list[StreamEvents] = []
        for piece in pieces(shown):
            if key == self._growing:
                self._grown.append(piece)
                self._pending_bytes += len(piece)
            else:
                delta = event if piece == event.delta else event.with_values(delta=piece)
                self._append(with_short(delta, "message_id"), _DELTA_BYTES + len(piece), time)
                self._growing = key
            if key not in self._begun or self._pending_bytes >= FLUSH_BYTES:
                self._begun.add(key)
                ready += self.flush()
            elif self.due is None or at + LINGER_SECONDS < self.due:
                self.due = at + LINGER_SECONDS
        return ready

    def _append(self, event: AnyEvent, size: int, time: datetime) -> None:
        if self._grown:
            self._grow()
        self._growing = None
        self._pending.append(event.numbered(self._next_seq + len(self._pending), time))
        self._pending_bytes += size

    def _grow(self) -> None:
        """Join what was merged into the last delta: a copy for each delta cost half the time of all."""
        last = self._pending[-1]
        assert last.type == "part.delta"
        self._pending[-1] = last.with_values(delta=last.delta + "".join(self._grown))
        self._grown = []
