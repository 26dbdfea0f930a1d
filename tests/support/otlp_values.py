"""OTLP's messages as plain values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | bool | int | float | bytes | None | list["Value"] | dict[str, "Value"]
Attributes = Mapping[str, Value]
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")


@dataclass(frozen=True, kw_only=True)
class EventSeen:
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True, kw_only=True)
class LinkSeen:
    """Another span that has to do with it."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(frozen=True, kw_only=True)
class SpanSeen:
    """A span as it arrived; ids in hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    trace_state: str
    sampled: bool
    kind: str
    status: str
    status_detail: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[EventSeen, ...]
    links: tuple[LinkSeen, ...]
    resource: Attributes
    scope: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """One data point of a measurement."""

    name: str
    unit: str
    kind: str
    """sum, gauge or histogram."""
    attributes: Attributes
    value: float
    """Of a histogram the sum."""
    count: int
    """Of a histogram; else 1."""
    bounds: tuple[float, ...]
    """Of a histogram's buckets."""
    resource: Attributes


def spans_of(message: ExportTraceServiceRequest) -> Iterator[SpanSeen]:
    """Yield the spans of an export."""
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(span, _plain(resource.resource.attributes), scope.scope.name)


def points_of(message: ExportMetricsServiceRequest) -> Iterator[Point]:
    """Yield the data points of an export."""
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from _points(metric, _plain(resource.resource.attributes))


def _span(span: Span, resource: Attributes, scope: str) -> SpanSeen:
    return SpanSeen(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        trace_state=span.trace_state,
        sampled=bool(span.flags & 1),
        kind=_KINDS[span.kind],
        status=_STATUSES[span.status.code],
        status_detail=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_plain(span.attributes),
        events=tuple(
            EventSeen(name=event.name, time_ns=event.time_unix_nano, attributes=_plain(event.attributes))
            for event in span.events
        ),
        links=tuple(
            LinkSeen(trace_id=link.trace_id.hex(), span_id=link.span_id.hex(), attributes=_plain(link.attributes))
            for link in span.links
        ),
        resource=resource,
        scope=scope,
    )


def _points(metric: Metric, resource: Attributes) -> Iterator[Point]:
    kind = metric.WhichOneof("data") or "none"
    points: Sequence[NumberDataPoint | HistogramDataPoint] = getattr(metric, kind).data_points
    for point in points:
        yield Point(
            name=metric.name,
            unit=metric.unit,
            kind=kind,
            attributes=_plain(point.attributes),
            value=point.sum if isinstance(point, HistogramDataPoint) else _number(point),
            count=point.count if isinstance(point, HistogramDataPoint) else 1,
            bounds=tuple(point.explicit_bounds) if isinstance(point, HistogramDataPoint) else (),
            resource=resource,
        )


def _number(point: NumberDataPoint) -> float:
    return point.as_int if point.WhichOneof("value") == "as_int" else point.as_double


def _plain(attributes: Sequence[KeyValue]) -> dict[str, Value]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _plain(value.kvlist_value.values)
    plain: Value = None if kind is None else getattr(value, kind)
    return plain
