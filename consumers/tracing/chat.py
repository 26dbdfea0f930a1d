"""The span of one model call."""

from typing import Final

from opentelemetry.util.types import AttributeValue

from agentstream.consumers.tracing.spans import SpanError, SpanMaker, TimedSpan
from agentstream.schemas import span_names as names
from agentstream.schemas.messages import FinishReason, Usage

BROKEN_OFF: Final = frozenset({"error", "cancelled"})
"""Reasons for which a model stopped in the middle. Why that was, the attempt's end says."""


class ChatSpan:
    """A model call that is under way, or over but not closed: its turn's end may tell its usage."""

    __slots__ = ("_make", "_reason", "_usage", "heard", "span", "stopped")

    def __init__(self, make: SpanMaker, span: TimedSpan) -> None:
        self.span = span
        self.stopped: int | None = None
        """When the model had said its last."""
        self._make = make
        self.heard = False
        """Whether anything came."""
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None

    @property
    def broken_off(self) -> bool:
        """Whether the model stopped in the middle."""
        return self._reason in BROKEN_OFF

    def first_chunk(self, at: int) -> None:
        """Something came; only the first time counts."""
        if not self.heard and self.stopped is None:
            self.heard = True
            self.span.event(names.FIRST_CHUNK, at)
            self.span.set({names.TIME_TO_FIRST_CHUNK: self.span.seconds(at)})

    def stop(self, at: int, reason: FinishReason | None, usage: Usage | None) -> None:
        """The model has said its last. Of a message that ended before, the turn's end can only tell the usage."""
        if self.stopped is None:
            self.stopped = at
            self._reason = reason
        self._usage = self._usage or usage

    def end(self, at: int, error: SpanError | None) -> None:
        """Close it: when it stopped, or now; with the error if it did not stop, or broke off."""
        said: dict[str, AttributeValue] = {}
        if self._reason is not None:
            said[names.FINISH_REASONS] = [self._reason]
        if self._usage is not None:
            said[names.RESPONSE_MODEL] = self._make.text(self._usage.model)
            if self._make.openinference:
                said[names.LLM_MODEL] = said[names.RESPONSE_MODEL]
            said |= self._make.usage([self._usage])
            said |= self._make.llm_usage([self._usage])
        self.span.set(said)
        if self.stopped is None:
            self.span.end(at, error)
        else:
            self.span.end(self.stopped, error if self.broken_off else None)
