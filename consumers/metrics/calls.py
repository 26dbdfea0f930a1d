"""The model calls and tool calls of one attempt, measured from its events as they come. Synchronous; raises nothing."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from agentstream.consumers.harness.port import HarnessEvent
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartStarted,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Usage
from agentstream.schemas.span_names import NEVER_ENDED, TOOL_ERROR

_FIRST_CHUNKS: Final = frozenset({PartStarted, PartDelta})
_MEASURED: Final = frozenset[type]({TurnStarted, TurnEnded, MessageStarted, MessageEnded, ToolStarted, ToolEnded})


class CallMetrics:
    """`saw` the events in order, then `close`: what is open then has failed."""

    def __init__(self, metrics: Metrics, model: str | None, tools: Collection[str]) -> None:
        """`tools`: those that the run may call. A model makes up names, and each would be a series of its own."""
        self._metrics = metrics
        # Where nobody reads, no call is seen to begin, and nothing is worked out for it.
        self._measured = _MEASURED if metrics.are_read else frozenset[type]()
        self._allowed = tools
        self._model = model
        self._called_at: datetime | None = None
        self._first_chunk_s: float | None = None
        self._tools: dict[str, tuple[str | None, datetime]] = {}

    def saw(self, event: HarnessEvent, time: datetime) -> None:
        """It happened then."""
        kind = type(event)
        if kind in _FIRST_CHUNKS:
            self._heard(time)
        elif kind in self._measured:
            self._take(event, time)

    def _take(self, event: HarnessEvent, time: datetime) -> None:
        match event:
            case TurnStarted() | MessageStarted(role="assistant"):
                # A turn's first message is the answer to the call that began with the turn.
                self._called_at = self._called_at or time
            case MessageEnded() if event.message is not None and event.message.role == "assistant":
                self._answered(time, event.usage, None)
            case TurnEnded():
                self._answered(time, event.usage, NEVER_ENDED)
            case ToolStarted():
                named = event.tool_name if event.tool_name in self._allowed else None
                self._tools[event.tool_call_id] = (named, time)
            case ToolEnded():
                self._tool_ended(event, time)
            case _:
                pass

    def close(self, time: datetime, error: str | None) -> None:
        """The attempt is over, for `error` if it failed."""
        self._answered(time, None, error or NEVER_ENDED)
        for name, began in self._tools.values():
            self._metrics.tool_called(name, _seconds(began, time), error=error or NEVER_ENDED)
        self._tools.clear()

    def _heard(self, time: datetime) -> None:
        if self._called_at is not None and self._first_chunk_s is None:
            self._first_chunk_s = _seconds(self._called_at, time)

    def _answered(self, time: datetime, usage: Usage | None, error: str | None) -> None:
        if self._called_at is None:
            return
        seconds = _seconds(self._called_at, time)
        self._metrics.model_called(self._model, seconds, first_chunk_s=self._first_chunk_s, usage=usage, error=error)
        self._called_at = self._first_chunk_s = None

    def _tool_ended(self, event: ToolEnded, time: datetime) -> None:
        if (started := self._tools.pop(event.tool_call_id, None)) is not None:
            name, began = started
            self._metrics.tool_called(name, _seconds(began, time), error=TOOL_ERROR if event.is_error else None)


def _seconds(begin: datetime, end: datetime) -> float:
    # The wall clock may be set back.
    return max(0.0, (end - begin).total_seconds())
