"""An OTLP request of spans, as bytes: what the official encoder makes, for a sixth of its cost.

That one makes two objects for each attribute of each span, and most attributes say what others in the same request say:
the agent, the model, the session. Here each different one is encoded once for a request, and its bytes are used again.
What is rare is written by protobuf's own classes.
"""

import struct
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from agentstream.infra.telemetry.pieces import Known, field, head, key_values

_STATUSES: Final = {
    StatusCode.UNSET: otlp.Status.STATUS_CODE_UNSET,
    StatusCode.OK: otlp.Status.STATUS_CODE_OK,
    StatusCode.ERROR: otlp.Status.STATUS_CODE_ERROR,
}
_HERE: Final = int(otlp.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE: Final = _HERE | int(otlp.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_SPANS_OF_SCOPE: Final = otlp.ScopeSpans.SPANS_FIELD_NUMBER
_SCOPES_OF_RESOURCE: Final = otlp.ResourceSpans.SCOPE_SPANS_FIELD_NUMBER
_RESOURCES: Final = 1

# Fields as they stand in a span, a link's ids as well: number and wire type, then the length of what has one.
_TRACE_ID, _SPAN_ID, _PARENT_ID, _START, _END = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x39", b"\x41"
_TIMES: Final = struct.Struct("<cQcQ")
_BELOW_LOCAL: Final = otlp.Span(flags=_HERE).SerializeToString()
_BELOW_REMOTE: Final = otlp.Span(flags=_REMOTE).SerializeToString()
_NO_STATUS: Final = otlp.Span(status=otlp.Status()).SerializeToString()
_KINDS: Final = {
    kind.value: otlp.Span(kind=number).SerializeToString()
    for kind, number in (
        (SpanKind.INTERNAL, otlp.Span.SPAN_KIND_INTERNAL),
        (SpanKind.SERVER, otlp.Span.SPAN_KIND_SERVER),
        (SpanKind.CLIENT, otlp.Span.SPAN_KIND_CLIENT),
        (SpanKind.PRODUCER, otlp.Span.SPAN_KIND_PRODUCER),
        (SpanKind.CONSUMER, otlp.Span.SPAN_KIND_CONSUMER),
    )
}
"""By the kind's value: an enumeration's member is hashed by a function in Python."""


class OtlpSpanExporter(OTLPSpanExporter):
    """The official exporter, whose requests are encoded here."""

    def export(self, spans: Sequence[sdk.ReadableSpan]) -> SpanExportResult:
        """Send them; waits for the answer, retries as the official one does. Raises for what cannot be encoded."""
        client = getattr(self, "_client", None)
        if client is None:
            return super().export(spans)  # another release keeps it elsewhere: then it encodes them itself
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = client.export(request_of(spans)).success
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


def request_of(spans: Sequence[sdk.ReadableSpan]) -> bytes:
    """The body of a request with these spans: an ExportTraceServiceRequest. Raises ValueError, TypeError, OverflowError
    or struct.error for a span that cannot be written; an attribute that cannot is left out."""
    known = Known()
    groups: dict[tuple[int, int], list[sdk.ReadableSpan]] = {}
    resource, scope, group = object(), object(), list[sdk.ReadableSpan]()
    for span in spans:
        if span.resource is not resource or span.instrumentation_scope is not scope:
            resource, scope = span.resource, span.instrumentation_scope
            group = groups.setdefault((id(resource), id(scope)), [])
        group.append(span)
    # Joined once: a batch is a quarter of a megabyte, and to copy it costs as much as to encode it.
    return b"".join([piece for group in groups.values() for piece in _of_scope(group, known)])


def _of_scope(spans: Sequence[sdk.ReadableSpan], known: Known) -> list[bytes]:
    """Spans of one resource and one scope. Of these the official encoder writes what they say of themselves."""
    frame = encode_spans(spans[:1]).resource_spans[0]
    scope = frame.scope_spans[0]
    del scope.spans[:], frame.scope_spans[:]
    inner = [scope.SerializeToString()]
    for span in spans:
        body = _span(span, known)
        inner += head(_SPANS_OF_SCOPE, len(body)), body
    size = sum(map(len, inner))
    outer = [frame.SerializeToString(), head(_SCOPES_OF_RESOURCE, size)]
    return [head(_RESOURCES, size + sum(map(len, outer))), *outer, *inner]


def _span(span: sdk.ReadableSpan, known: Known) -> bytes:
    # What every span has is put together here: by protobuf's classes it takes three times as long. A place is a tuple:
    # each of its properties is a call.
    trace_id, span_id, _, _, state, _ = span.context
    pieces = [
        _TRACE_ID,
        trace_id.to_bytes(16, "big"),
        _SPAN_ID,
        span_id.to_bytes(8, "big"),
        known.names[span.name],
        _KINDS[span.kind._value_],
        _TIMES.pack(_START, span.start_time or 0, _END, span.end_time or 0),
    ]
    if (parent := span.parent) is None:
        pieces.append(_BELOW_LOCAL)
    else:
        pieces += _PARENT_ID, parent[1].to_bytes(8, "big"), _BELOW_REMOTE if parent[2] else _BELOW_LOCAL
    attributes, events, links = span.attributes, span.events, span.links
    if attributes:
        known.add(attributes, pieces)
    if events:
        pieces += [_event(event, known) for event in events]
    if links:
        pieces += [_link(link, known) for link in links]
    # What is no longer a plain dictionary or tuple may have been cut at a limit.
    is_whole = type(attributes) is dict and type(events) is tuple and type(links) is tuple
    pieces.append(_NO_STATUS if is_whole and not state and span.status.is_unset else _rest(span))
    return b"".join(pieces)


def _rest(span: sdk.ReadableSpan) -> bytes:
    """What few spans have."""
    state = span.context.trace_state
    return otlp.Span(
        status=_status(span.status),
        trace_state=",".join([f"{key}={value}" for key, value in state.items()]),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
    ).SerializeToString()


def _status(status: Status) -> otlp.Status:
    return otlp.Status(code=_STATUSES[status.status_code], message=status.description or "")


def _event(event: sdk.Event, known: Known) -> bytes:
    """As it stands in a span."""
    if not event.attributes and not event.dropped_attributes:
        before, after = known.events[event.name]
        return before + event.timestamp.to_bytes(8, "little") + after
    written = otlp.Span.Event(
        name=event.name,
        time_unix_nano=event.timestamp,
        attributes=key_values(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )
    return field(otlp.Span.EVENTS_FIELD_NUMBER, written.SerializeToString())


def _link(link: Link, known: Known) -> bytes:
    """As it stands in a span."""
    trace_id, span_id, is_remote, _, _, _ = link.context
    looks = (repr(link.attributes), link.dropped_attributes, is_remote)
    rest = known.links.get(looks)
    if rest is None:
        rest = known.links[looks] = otlp.Span.Link(
            attributes=key_values(link.attributes),
            dropped_attributes_count=link.dropped_attributes,
            flags=_REMOTE if is_remote else _HERE,
        ).SerializeToString()
    ids = _TRACE_ID + trace_id.to_bytes(16, "big") + _SPAN_ID + span_id.to_bytes(8, "big")
    return field(otlp.Span.LINKS_FIELD_NUMBER, ids + rest)
