"""An OTLP request of spans, as bytes: what the official encoder makes, for a sixth of its cost.

That one makes two objects for each attribute of each span, and most attributes say what others say: the agent, the
model, the session. Here each different one is encoded once for many spans, and its bytes are used again. What is rare
is written by protobuf's own classes.

A span is written when it ends, in the thread that ends it, and the exporter's thread puts requests together: written
there, 512 at a time, it took three times as long, since by then no cache held the span, and two threads of Python
take turns.
"""

import struct
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import DEFAULT_TRACE_STATE, INVALID_SPAN_CONTEXT, Link, SpanKind, Status, StatusCode

from agentstream.infra.telemetry.pieces import Known, field, head, key_values
from agentstream.infra.telemetry.recorded import UNSET, Maker, RecordedSpan

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
REMEMBERED: Final = 2_048
"""Spans whose pieces are kept for others: most texts are of one run, and would else be kept for ever."""

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


class WrittenSpan:
    """A span as it stands in a request, among those of its maker."""

    __slots__ = ("body", "maker", "size")

    def __init__(self, body: bytes, maker: Maker) -> None:
        self.body = body
        self.maker = maker
        self.size = len(body)


class SpanWriter:
    """Writes spans, from any thread."""

    def __init__(self) -> None:
        self._known = Known()
        self._left = REMEMBERED

    def write(self, span: RecordedSpan) -> WrittenSpan:
        """One that has ended. Raises ValueError, TypeError, OverflowError or struct.error for a span that cannot be
        written; an attribute that cannot is left out."""
        if self._left <= 0:
            self._known, self._left = Known(), REMEMBERED
        self._left -= 1
        known = self._known
        # What every span has is put together here: by protobuf's classes it takes three times as long. A place is a
        # tuple: each of its properties is a call.
        trace_id, span_id, _, _, state, _ = span.context
        pieces = [
            _TRACE_ID,
            trace_id.to_bytes(16, "big"),
            _SPAN_ID,
            span_id.to_bytes(8, "big"),
            known.names[span.name],
            _KINDS[span.kind._value_],
            _TIMES.pack(_START, span.start_time, _END, span.end_time or 0),
        ]
        if (parent := span.parent) is None:
            pieces.append(_BELOW_LOCAL)
        else:
            pieces += _PARENT_ID, parent[1].to_bytes(8, "big"), _BELOW_REMOTE if parent[2] else _BELOW_LOCAL
        for each in span.shared:
            pieces.append(known.shared(each))
        own, events, links = span.own, span.events, span.links
        known.add(own, pieces)
        for event in events:
            pieces.append(_event(event, known))
        for link in links:
            pieces.append(_link(link, known))
        # What is no longer a plain dictionary or tuple may have been cut at a limit. To ask a state whether it is empty
        # is a call, and nearly always it is the one that stands for none.
        is_whole = type(own) is dict and type(events) is tuple and type(links) is tuple
        is_plain = span.status is UNSET and (state is DEFAULT_TRACE_STATE or not state)
        pieces.append(_NO_STATUS if is_whole and is_plain else _rest(span))
        body = b"".join(pieces)
        return WrittenSpan(head(_SPANS_OF_SCOPE, len(body)) + body, span.maker)


class OtlpSpanExporter(OTLPSpanExporter):
    """The official exporter, whose requests are put together here."""

    @property
    def takes_bytes(self) -> bool:
        """Whether `send` can be used; another release may keep elsewhere what it sends with."""
        return getattr(self, "_client", None) is not None

    def send(self, spans: Sequence[WrittenSpan]) -> SpanExportResult:
        """Send them; waits for the answer, retries as the official one does."""
        sent = not self._shutdown and self._client.export(joined(spans)).success
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


def request_of(spans: Sequence[RecordedSpan]) -> bytes:
    """The body of a request with these spans. Raises as `SpanWriter.write`."""
    writer = SpanWriter()
    return joined([writer.write(span) for span in spans])


def joined(spans: Sequence[WrittenSpan]) -> bytes:
    """The body of a request with these spans: an ExportTraceServiceRequest."""
    makers: dict[int, tuple[Maker, list[bytes]]] = {}
    maker, bodies = None, list[bytes]()
    for span in spans:
        if span.maker is not maker:
            maker, bodies = makers.setdefault(id(span.maker), (span.maker, []))
        bodies.append(span.body)
    # Joined once: a batch is a quarter of a megabyte, and to copy it costs as much as to encode it.
    return b"".join([piece for maker, bodies in makers.values() for piece in _of_maker(maker, bodies)])


def _of_maker(maker: Maker, bodies: list[bytes]) -> list[bytes]:
    """What its resource and its scope say of themselves, which the official encoder writes, and its spans."""
    span = sdk.ReadableSpan("", INVALID_SPAN_CONTEXT, resource=maker.resource, instrumentation_scope=maker.scope)
    frame = encode_spans([span]).resource_spans[0]
    scope = frame.scope_spans[0]
    del scope.spans[:], frame.scope_spans[:]
    inner = [scope.SerializeToString(), *bodies]
    size = sum(map(len, inner))
    outer = [frame.SerializeToString(), head(_SCOPES_OF_RESOURCE, size)]
    return [head(_RESOURCES, size + sum(map(len, outer))), *outer, *inner]


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
