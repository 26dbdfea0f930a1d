"""An attempt that nobody traces."""

from datetime import datetime
from typing import Final

from agentstream.consumers.harness.port import HarnessEvent
from agentstream.consumers.tracing.spans import SpanError
from agentstream.schemas.events import ReadEvent
from agentstream.schemas.messages import Cost, FinishReason


class AttemptSpans:
    """One attempt: it is told its events in order, then closed. It passes that over; `TracedAttempt` does not."""

    __slots__ = ()

    def saw(self, event: HarnessEvent | ReadEvent, time: datetime) -> None:
        """It happened then."""

    def lost(self) -> None:
        """Its worker was lost."""

    def close(self, at: int, error: SpanError | None, *, reason: FinishReason | None, cost: Cost | None) -> None:
        """The attempt is over, at nanoseconds since 1970; what is still open is closed with its error."""


UNTRACED: Final = AttemptSpans()
"""Keeps nothing: one is enough for all."""
