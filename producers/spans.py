"""Between our trace context and OpenTelemetry's, and the spans of what is sent. Its API only; nothing here raises."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from agentstream.schemas import span_names as names
from agentstream.schemas.trace import TraceContext

_KEY = r"[a-z0-9][_0-9a-z*/-]{0,240}(?:@[a-z][_0-9a-z*/-]{0,13})?"
_MEMBER = re.compile(rf"{_KEY}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")

_NO_STATE: Final = DEFAULT_TRACE_STATE


def span_context(trace: TraceContext) -> SpanContext:
    """Ours as OpenTelemetry's, from elsewhere."""
    return SpanContext(
        trace_id=int(trace.trace_id, 16),
        span_id=int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(trace.flags, 16)),
        trace_state=_state(trace.tracestate),
    )


def parent(place: SpanContext) -> Context:
    """A context whose span this is."""
    return set_span_in_context(NonRecordingSpan(place), Context())


def trace_of(span: Span, base: TraceContext) -> TraceContext:
    """The span's place as it goes into headers; `base`, what it was begun from, where nothing makes spans.

    Baggage goes on as it is, tracestate too unless a sampler wrote to it.
    """
    trace_id, span_id, _, flags, state, is_valid = span.get_span_context()  # a tuple: each of its properties is a call
    if not is_valid:
        return base
    changed = bool(base.tracestate or state is not _NO_STATE) and state != _state(base.tracestate)
    return TraceContext(
        trace_id=f"{trace_id:032x}",
        span_id=f"{span_id:016x}",
        flags=f"{flags:02x}",
        tracestate=(state.to_header() or None) if changed else base.tracestate,
        baggage=base.baggage,
    )


def current_trace() -> TraceContext | None:
    """The place of the span that is current in the calling program, if there is one."""
    found = get_current_span().get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(
        trace_id=f"{found.trace_id:032x}",
        span_id=f"{found.span_id:016x}",
        flags=f"{found.trace_flags:02x}",
        tracestate=found.trace_state.to_header() or None,
    )


SENT: Final = {
    names.MESSAGING_SYSTEM: names.KAFKA,
    names.OPERATION: names.SEND,
    names.OPERATION_TYPE: names.SEND,
}
"""What each span says of a record on its way to a topic."""


@contextmanager
def sending(
    tracer: Tracer, topic: str, given: TraceContext | None, attributes: Mapping[str, str]
) -> Iterator[TraceContext]:
    """The span of a record that is sent within the block; gives what goes into its headers.

    Below `given`, else below the span that is current in the calling program, else the root of a new trace.
    """
    above = given or current_trace()
    base = above or TraceContext.fresh()
    span = tracer.start_span(
        f"{names.SEND} {topic}",
        Context() if above is None else parent(span_context(above)),
        SpanKind.PRODUCER,
        {**SENT, names.DESTINATION: topic, **attributes},
    )
    try:
        yield trace_of(span, base)
    except BaseException as error:
        failed(span, type(error).__name__)
        raise
    finally:
        span.end()


def failed(span: Span, code: str, detail: str | None = None) -> None:
    """Mark a span as failed, for the code of an error."""
    span.set_attribute(names.ERROR_TYPE, code)
    span.set_status(StatusCode.ERROR, clean(detail) if detail else code)


def clean(text: str) -> str:
    """The text without halves of characters: one of them would cost the whole batch of spans its export."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class Sends:
    """The spans of the records that one outcome leaves, one for each topic, from encoding until they are committed."""

    def __init__(self, begin: Callable[[str], Span], below: TraceContext) -> None:
        """`begin`: begins one for a topic, now; `below`: what they are begun from."""
        self._begin = begin
        self._below = below
        self._spans: dict[str, Span] = {}

    def trace(self, topic: str) -> TraceContext:
        """What goes into the headers of a record for this topic; asked again, the same."""
        span = self._spans.get(topic)
        if span is None:
            span = self._spans[topic] = self._begin(topic)
        return trace_of(span, self._below)

    def end(self, error: str | None = None) -> None:
        """They are committed, or never will be, for this reason."""
        now = time.time_ns()
        while self._spans:
            _, span = self._spans.popitem()
            if error is not None:
                failed(span, error)
            span.end(now)


def _state(header: str | None) -> TraceState:
    if not header:
        return _NO_STATE
    members = [member.strip(" \t") for member in header.split(",")]
    pairs = [member.partition("=")[::2] for member in members if member]
    # OpenTelemetry logs a warning for each malformed one: any caller could fill our log.
    if len(pairs) > 32 or not all(_MEMBER.fullmatch("=".join(pair)) for pair in pairs) or len(dict(pairs)) < len(pairs):
        return TraceState()
    return TraceState(pairs)
