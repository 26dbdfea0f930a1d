"""From a harness's events to numbered records for the delta topic: filter, redact, cut, merge, and number last.

Plain and synchronous; time is passed in. The first event of an attempt and the first token of a part go at once,
later ones wait up to 25 ms or 4 KiB for company, so that a fast model costs dozens of records a second, not thousands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agentstream.consumers.redaction import Redactor, StreamRedactor
from agentstream.consumers.truncation import MAX_EVENT_BYTES, chars_in, cut, pieces
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    PartDelta,
    PartEnded,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
)
from agentstream.schemas.requests import StreamMode

LINGER_SECONDS: Final = 0.025
"""How long an event waits for company."""
END_LINGER_SECONDS: Final = 0.005
"""After the end of a part, tool, message or turn: they come in bunches, and a reader waits for them."""
FLUSH_BYTES: Final = 4_096
"""So much does not wait any longer."""
MAX_RECORD_BYTES: Final = 6 * FLUSH_BYTES + MAX_EVENT_BYTES + 32_768
"""No record is larger: what waited, then one event, and the frame around them. Far below any topic's limit."""

_PartKey = tuple[str, int]
_ENDS = (PartEnded, MessageEnded, ToolEnded, TurnEnded)
_LARGE = (PartEnded, MessageEnded, TurnEnded, ToolStarted, ToolProgressed, ToolEnded, RunEnded)
_ALWAYS = (RunStarted, RunRetrying, RunEnded)


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


@dataclass(slots=True)
class _Waiting:
    """An event that waits for company, with the deltas merged into it: copying a model for each cost half the time."""

    event: AnyEvent
    time: datetime
    more: list[str]

    def numbered(self, seq: int) -> AnyEvent:
        event = self.event
        if isinstance(event, PartDelta) and self.more:
            event = event.model_copy(update={"delta": event.delta + "".join(self.more)})
        return event.numbered(seq, self.time)


class Numbering:
    """The events of one attempt on their way to the delta topic."""

    def __init__(self, name: AttemptName, *, mode: StreamMode, redactor: Redactor, first_seq: int = 0) -> None:
        self._name = name
        self._mode = mode
        self._redactor = redactor
        self._open: dict[_PartKey, tuple[PartDelta, StreamRedactor]] = {}
        self._begun: set[_PartKey] = set()
        self._pending: list[_Waiting] = []
        self._pending_bytes = 0
        self._due: float | None = None
        self._next_seq = first_seq

    @property
    def last_seq(self) -> int:
        """`seq` of the last event that was given out; −1, or one below `first_seq`, before the first."""
        return self._next_seq - 1

    @property
    def due(self) -> float | None:
        """When `flush` is to be called, on the clock of `add`; None while nothing waits."""
        return self._due

    def add(self, event: AnyEvent, *, at: float, time: datetime) -> list[StreamEvents]:
        """Take one event that happened `at` (monotonic seconds), and give the records that must go at once."""
        ready: list[StreamEvents] = []
        for each in self._shown(event):
            if _is_wanted(each, self._mode):
                ready += self._queue(_Waiting(cut(each), time, []), at)
        return ready

    def flush(self) -> list[StreamEvents]:
        """All that waits, as at most one record. Ends of texts that may be the start of a secret stay held back."""
        if not self._pending:
            return []
        first = self._next_seq
        events = tuple(waiting.numbered(first + place) for place, waiting in enumerate(self._pending))
        self._next_seq += len(events)
        self._pending, self._pending_bytes, self._due = [], 0, None
        name = self._name
        return [
            StreamEvents(
                run_id=name.run_id,
                session_id=name.session_id,
                claim=name.claim,
                attempt=name.attempt,
                attempt_id=name.attempt_id,
                first_seq=first,
                events=events,
            )
        ]

    def _shown(self, event: AnyEvent) -> list[AnyEvent]:
        """The event without secrets, after the rests of the texts that it ends."""
        match event:
            case PartDelta():
                return self._delta(event)
            case PartEnded():
                rests = self._rests(lambda key: key == (event.message_id, event.part_index))
            case MessageEnded():
                rests = self._rests(lambda key: key[0] == event.message_id)
            case RunEnded() | RunRetrying():
                rests = self._rests(lambda _: True)
            case _:
                rests = []
        return [*rests, self._redactor.model(event)]

    def _delta(self, event: PartDelta) -> list[AnyEvent]:
        if self._mode != "full":
            return []
        key = (event.message_id, event.part_index)
        stream = self._open[key][1] if key in self._open else self._redactor.stream()
        self._open[key] = (event, stream)
        shown = stream.feed(event.delta)
        return list(pieces(event if shown == event.delta else event.model_copy(update={"delta": shown})))

    def _rests(self, ends: Callable[[_PartKey], bool]) -> list[AnyEvent]:
        rests: list[AnyEvent] = []
        for key in [key for key in self._open if ends(key)]:
            last, stream = self._open.pop(key)
            rests += pieces(last.model_copy(update={"delta": stream.finish()}))
        return rests

    def _queue(self, waiting: _Waiting, at: float) -> list[StreamEvents]:
        event, last = waiting.event, self._pending[-1] if self._pending else None
        if (
            last
            and isinstance(event, PartDelta)
            and isinstance(last.event, PartDelta)
            and _key(last.event) == _key(event)
        ):
            last.more.append(event.delta)
            self._pending_bytes += len(event.delta)
        else:
            self._pending.append(waiting)
            self._pending_bytes += _size(event)
        due = at + (END_LINGER_SECONDS if isinstance(event, _ENDS) else LINGER_SECONDS)
        self._due = due if self._due is None else min(self._due, due)
        return self.flush() if self._is_urgent(event) or self._pending_bytes >= FLUSH_BYTES else []

    def _is_urgent(self, event: AnyEvent) -> bool:
        if isinstance(event, PartDelta):
            first = _key(event) not in self._begun
            self._begun.add(_key(event))
            return first
        return isinstance(event, _ALWAYS)


def _is_wanted(event: AnyEvent, mode: StreamMode) -> bool:
    if mode == "full" or isinstance(event, _ALWAYS):
        return True
    return mode == "events" and not isinstance(event, PartDelta)


def _size(event: AnyEvent) -> int:
    """About as many bytes as it takes, without writing out what is small anyway."""
    if isinstance(event, PartDelta):
        return 160 + len(event.delta)
    if not isinstance(event, _LARGE):
        return 300
    chars = chars_in(event)
    return len(event.to_bytes()) if chars is None else chars


def _key(event: PartDelta) -> _PartKey:
    return event.message_id, event.part_index
