"""One attempt, as its spans see it: it notes what happens, and makes spans of its notes when its request ends."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from opentelemetry.trace import Link

from agentstream.consumers.harness.port import HarnessEvent
from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing.attempt import AgentFacts, AttemptWriter, spans_of
from agentstream.consumers.tracing.spans import Held, SpanError, SpanMaker, TimedSpan
from agentstream.consumers.tracing.untraced import AttemptSpans
from agentstream.schemas import span_names as names
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartStarted,
    ReadEvent,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Cost, FinishReason

MAX_NOTES: Final = 50
"""So many wait: six turns with a tool each. They hold arguments and results."""
_PIECES: Final = frozenset({PartDelta, PartStarted})
_SHOWN: Final = frozenset({TurnStarted, TurnEnded, MessageStarted, MessageEnded, ToolStarted, ToolEnded})


class TracedAttempt(AttemptSpans):
    """Notes what it is told, and makes spans of it later, all at once: they do not leave before their request ends.

    A worker that makes each when it begins has forgotten how by the next: its caches hold 64 runs, their loop and
    Kafka. Spans that take 80 µs a run in a loop took 200 there; made at a commit, one run after the other, they do not.
    """

    __slots__ = ("__weakref__", "_begin", "_end", "_in_pieces", "_most", "_notes", "_writer", "is_open")

    def __init__(  # noqa: PLR0913 - what its first span is made of
        self,
        make: SpanMaker,
        name: AttemptName,
        facts: AgentFacts,
        *,
        at: int,
        above: TimedSpan,
        links: Sequence[Link],
        held: Held,
    ) -> None:
        """`above`: its request's span; `held` as in `SpanMaker.start`. It began at nanoseconds since 1970."""
        self._begin: Callable[[], AttemptWriter] = partial(
            AttemptWriter, make, name, facts, at=at, above=above.place, links=links, held=held
        )
        self._writer: AttemptWriter | None = None
        self._notes: list[tuple[HarnessEvent | ReadEvent, datetime]] = []
        # What was said takes ms to be shown. Made at once, it does not hold up the loop when 300 runs end together.
        self._most = MAX_NOTES if make.content is None else 0
        self._in_pieces = False
        self._end: tuple[int, SpanError | None, FinishReason | None, Cost | None] | None = None
        self.is_open = above.is_recording or self._writing.shows
        """Whether it takes notes: until its end, if anybody will see its spans."""

    @property
    def agent(self) -> TimedSpan:
        """Its first span."""
        return self._writing.agent

    def saw(self, event: HarnessEvent | ReadEvent, time: datetime) -> None:
        """It happened then."""
        # By type, as half of all events are neither: to ask for each class takes longer than to make a span.
        kind = type(event)
        if kind in _PIECES:
            if self._in_pieces:
                return  # of a text only its first piece matters
            self._in_pieces = True
        elif kind in _SHOWN:
            self._in_pieces = False
        else:
            return
        if self.is_open:
            self._notes.append((event, time))
            if len(self._notes) >= self._most:
                self.write()

    @property
    def unmade(self) -> int | None:
        """How many spans will be made of its notes; None: some are made already."""
        return spans_of(event for event, _ in self._notes) if self._writer is None else None

    def lost(self) -> None:
        """Its worker was lost."""
        self.agent.set({names.LOST: True})

    def close(self, at: int, error: SpanError | None, *, reason: FinishReason | None, cost: Cost | None) -> None:
        """The attempt is over; what is still open is closed with its error."""
        if self.is_open:
            self.is_open = False
            self._end = (at, error, reason, cost)
            if not self._most:
                self.write()

    def write(self) -> None:
        """Make spans of what was noted."""
        writer, notes = self._writing, self._notes
        self._notes = []
        for event, time in notes:
            writer.saw(event, time)
        if self._end is not None:
            at, error, reason, cost = self._end
            self._end = None
            writer.close(at, error, reason, cost)

    @property
    def _writing(self) -> AttemptWriter:
        if self._writer is None:
            self._writer = self._begin()
        return self._writer
