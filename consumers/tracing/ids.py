"""Which ids spans get. Derived, not drawn: another process can name a span that it never saw.

The next owner of a killed worker's partition goes on in the same trace and writes the lost spans under their own ids;
the Pi sidecar puts the id of our `chat` span on the model call without asking for it (docs/decisions/trace-ids.md).
"""

from contextvars import ContextVar
from hashlib import sha256
from typing import Final, Literal

from agentstream.schemas.records import Position

wanted_trace_id: Final[ContextVar[int | None]] = ContextVar("agentstream_wanted_trace_id", default=None)
"""Read by the SDK's id generator: the trace id of a root span that starts now."""
wanted_span_id: Final[ContextVar[int | None]] = ContextVar("agentstream_wanted_span_id", default=None)
"""Read by the SDK's id generator: the span id of a span that starts now."""

SpanKey = Literal["agent", "turn", "chat", "tool"]


def trace_id_of(position: Position, timestamp_ms: int) -> str:
    """The trace of a request that brought none: 32 hex digits, the same for each delivery of its record."""
    return f"{_digest(f'{position}/{timestamp_ms}', 16):032x}"


def process_id_of(position: Position, claim: int) -> str:
    """The `process` span of a request under one claim: 16 hex digits."""
    return f"{_digest(f'{position}/{claim}', 8):016x}"


def span_id_of(attempt_id: str, key: SpanKey, number: int) -> str:
    """The n-th span of its kind in an attempt: 16 hex digits. The sidecar derives `chat` the same way."""
    return f"{span_number_of(attempt_id, key, number):016x}"


def span_number_of(attempt_id: str, key: SpanKey, number: int) -> int:
    """The same id as a number, which is how OpenTelemetry holds it."""
    # As below, without the call: each span has one.
    return int.from_bytes(sha256(f"{attempt_id}/{key}/{number}".encode()).digest()[:8]) or 1


def _digest(text: str, size: int) -> int:
    # All zeros means "no id"; no text is known that gives it, but then nothing would say why a span is missing.
    return int.from_bytes(sha256(text.encode()).digest()[:size]) or 1


class wanting:  # noqa: N801  # a context manager; from a generator it would cost as much as half a span
    """Within, the SDK's next root span gets this trace id, and its next span this span id; None: a random one."""

    __slots__ = ("_span_id", "_span_token", "_trace_id", "_trace_token")

    def __init__(self, *, trace_id: str | None = None, span_id: str | None = None) -> None:
        """Hex digits."""
        self._trace_id = None if trace_id is None else int(trace_id, 16)
        self._span_id = None if span_id is None else int(span_id, 16)

    def __enter__(self) -> None:
        self._trace_token = wanted_trace_id.set(self._trace_id)
        self._span_token = wanted_span_id.set(self._span_id)

    def __exit__(self, *_: object) -> None:
        wanted_span_id.reset(self._span_token)
        wanted_trace_id.reset(self._trace_token)
