"""An OTLP request of spans, as bytes: what the official encoder makes, for a quarter of its cost.

That one makes two objects for each attribute of each span, and most attributes say what others in the same request say:
the agent, the model, the session. Here each different one is encoded once for a request, and its bytes are used again;
a protobuf message is the bytes of its fields, one after the other. What is rare is written by protobuf's own classes.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

log = logging.getLogger(__name__)
_KINDS: Final = {
    SpanKind.INTERNAL: otlp.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: otlp.Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: otlp.Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: otlp.Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: otlp.Span.SPAN_KIND_CONSUMER,
}
_STATUSES: Final = {
    StatusCode.UNSET: otlp.Status.STATUS_CODE_UNSET,
    StatusCode.OK: otlp.Status.STATUS_CODE_OK,
    StatusCode.ERROR: otlp.Status.STATUS_CODE_ERROR,
}
_NO_STATUS: Final = otlp.Status()
_HERE: Final = int(otlp.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE: Final = _HERE | int(otlp.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_SPANS_OF_SCOPE: Final = otlp.ScopeSpans.SPANS_FIELD_NUMBER
_SCOPES_OF_RESOURCE: Final = otlp.ResourceSpans.SCOPE_SPANS_FIELD_NUMBER
_RESOURCES: Final = 1


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
    """The body of a request with these spans: an ExportTraceServiceRequest. Raises ValueError or TypeError for a span
    that cannot be written; an attribute that cannot is left out."""
    attributes = _Attributes()
    groups: dict[tuple[int, int], list[sdk.ReadableSpan]] = {}
    for span in spans:
        groups.setdefault((id(span.resource), id(span.instrumentation_scope)), []).append(span)
    # Joined once: a batch is a quarter of a megabyte, and to copy it costs as much as to encode it.
    return b"".join([piece for group in groups.values() for piece in _of_scope(group, attributes)])


def _of_scope(spans: Sequence[sdk.ReadableSpan], attributes: "_Attributes") -> list[bytes]:
    """Spans of one resource and one scope. Of these the official encoder writes what they say of themselves."""
    frame = encode_spans(spans[:1]).resource_spans[0]
    scope = frame.scope_spans[0]
    del scope.spans[:], frame.scope_spans[:]
    inner = [scope.SerializeToString()]
    for span in spans:
        body = _span(span, attributes)
        inner += _head(_SPANS_OF_SCOPE, len(body)), body
    size = sum(map(len, inner))
    outer = [frame.SerializeToString(), _head(_SCOPES_OF_RESOURCE, size)]
    return [_head(_RESOURCES, size + sum(map(len, outer))), *outer, *inner]


def _span(span: sdk.ReadableSpan, attributes: "_Attributes") -> bytes:
    place, parent = span.context, span.parent
    head = otlp.Span(
        trace_id=place.trace_id.to_bytes(16, "big"),
        span_id=place.span_id.to_bytes(8, "big"),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        status=_status(span.status),
        flags=_flags(parent),
    )
    if parent is not None:
        head.parent_span_id = parent.span_id.to_bytes(8, "big")
    if place.trace_state:
        head.trace_state = ",".join([f"{key}={value}" for key, value in place.trace_state.items()])
    if events := span.events:
        head.events.extend(map(_event, events))
        head.dropped_events_count = span.dropped_events
    if links := span.links:
        head.links.extend(map(_link, links))
        head.dropped_links_count = span.dropped_links
    if dropped := span.dropped_attributes:
        head.dropped_attributes_count = dropped
    return head.SerializeToString() + attributes.of(span.attributes)


class _Attributes:
    """Attributes of spans as bytes, remembered for one request."""

    def __init__(self) -> None:
        self._texts: Final[dict[tuple[str, object], bytes]] = {}
        self._others: Final[dict[tuple[str, type, str], bytes]] = {}
        """By type and looks: 1, 1.0 and True are one key of a dictionary."""
        self._keys: Final[dict[str, bytes]] = {}

    def of(self, attributes: Mapping[str, object] | None) -> bytes:
        """All of a span's, as they stand in it."""
        texts, pieces = self._texts, list[bytes]()
        for pair in (attributes or {}).items():
            key, value = pair
            if type(value) is not str:
                piece = self._other(key, value)
            elif (found := texts.get(pair)) is not None:
                piece = found
            else:
                piece = texts[pair] = self._text(key, value)
            pieces.append(piece)
        return b"".join(pieces)

    def _other(self, key: str, value: object) -> bytes:
        looks = (key, type(value), repr(value))
        found = self._others.get(looks)
        if found is None:
            found = self._others[looks] = otlp.Span(attributes=_key_values({key: value})).SerializeToString()
        return found

    def _text(self, key: str, text: str) -> bytes:
        """Most of what is said of one run alone are texts; by protobuf's classes each takes three times as long."""
        try:
            name = self._keys.get(key)
            if name is None:
                name = self._keys[key] = _field(KeyValue.KEY_FIELD_NUMBER, key.encode())
            value = _field(AnyValue.STRING_VALUE_FIELD_NUMBER, text.encode())
        except UnicodeEncodeError as error:
            _left_out(key, error)
            return b""
        return _field(otlp.Span.ATTRIBUTES_FIELD_NUMBER, name + _field(KeyValue.VALUE_FIELD_NUMBER, value))


def _status(status: Status) -> otlp.Status:
    if status.is_unset:
        return _NO_STATUS
    return otlp.Status(code=_STATUSES[status.status_code], message=status.description or "")


def _event(event: sdk.Event) -> otlp.Span.Event:
    return otlp.Span.Event(
        name=event.name,
        time_unix_nano=event.timestamp,
        attributes=_key_values(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: Link) -> otlp.Span.Link:
    return otlp.Span.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        attributes=_key_values(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
        flags=_flags(link.context),
    )


def _flags(place: SpanContext | None) -> int:
    return _REMOTE if place is not None and place.is_remote else _HERE


def _key_values(attributes: Mapping[str, object] | None) -> list[KeyValue]:
    written: list[KeyValue] = []
    for key, value in (attributes or {}).items():
        try:
            written.append(KeyValue(key=key, value=_value(value)))
        except (ValueError, TypeError) as error:
            _left_out(key, error)
    return written


def _value(value: object) -> AnyValue:
    if isinstance(value, bool | str | int | float | bytes):
        return _plain(value)
    if isinstance(value, Mapping):
        pairs = [KeyValue(key=str(key), value=_value(each)) for key, each in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=pairs))
    if isinstance(value, Sequence):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue() if value is None else AnyValue(string_value=str(value))


def _plain(value: bool | str | float | bytes) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(bytes_value=value)


def _left_out(key: str, error: Exception) -> None:
    log.warning("an attribute is left out that cannot be written: %s: %s", key, type(error).__name__)


def _field(number: int, body: bytes) -> bytes:
    return _head(number, len(body)) + body


def _head(number: int, length: int) -> bytes:
    """What stands before a field's bytes: its number and how many they are."""
    digits = [number << 3 | 2]
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)
