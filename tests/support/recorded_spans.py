"""Spans of the SDK and ours side by side: what is done to both, and whether the same is recorded and encoded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from agentstream.consumers.tracing.ids import wanting
from agentstream.infra.telemetry.encoding import request_of
from agentstream.infra.telemetry.ids import WantedIds
from agentstream.infra.telemetry.processors import RoutedProcessor
from agentstream.infra.telemetry.recorded import RecordedSpan
from agentstream.infra.telemetry.recording import RecordingProvider

Act = Callable[[Tracer], None]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Kept(SpanProcessor):
    """The end of a provider's pipeline."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    with mock.patch.dict("os.environ", variables):
        yield


def both(act: Act, sampler: Sampler | None = None) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """What the SDK and we have recorded of the same."""
    resource = Resource({"service.name": "s", "n": 3})
    theirs, ours = Kept(), Kept()
    provider = TracerProvider(sampler, resource, id_generator=WantedIds(), shutdown_on_exit=False)
    provider.add_span_processor(theirs)
    act(provider.get_tracer("scope", "1.0"))
    routed = RoutedProcessor(default=[ours], local=[], targets={}, exclusive=frozenset())  # type: ignore[list-item]
    act(RecordingProvider(provider, routed).get_tracer("scope", "1.0"))
    return theirs.spans, ours.spans


def sorted_out(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """With attributes in one order: the SDK moves one that is said again to the end."""

    def key(pair: KeyValue) -> str:
        return pair.key

    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                span.attributes.sort(key=key)
    return request


def same(act: Act) -> int:
    """Both record the same, and the requests are the same. Returns how many spans that were."""
    theirs, ours = both(act)
    assert len(theirs) == len(ours)
    if theirs:
        recorded = [span for span in ours if isinstance(span, RecordedSpan)]
        assert len(recorded) == len(ours)
        written = ExportTraceServiceRequest.FromString(request_of(recorded))
        assert sorted_out(written) == sorted_out(encode_spans(theirs))
        assert sorted_out(encode_spans(ours)) == sorted_out(encode_spans(theirs))
    return len(ours)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abc.", min_size=1, max_size=4)
plain = st.one_of(
    texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(max_size=4)
)
values = st.one_of(plain, st.lists(texts, max_size=3), st.lists(st.booleans(), max_size=2), st.just(1), st.just(True))
said = st.dictionaries(names, values, max_size=6)
places = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from((TraceFlags(1), TraceFlags(3))),
    trace_state=st.sampled_from((TraceState(), TraceState([("a", "b"), ("c", "d=e")]))),
)


@dataclass(frozen=True)
class Told:
    """A span from its beginning to its end."""

    name: str
    kind: SpanKind
    parent: SpanContext | None
    attributes: Mapping[str, object]
    more: Mapping[str, object]
    events: list[tuple[str, int, Mapping[str, object]]]
    links: list[tuple[SpanContext, Mapping[str, object]]]
    status: tuple[StatusCode, str | None]

    def play(self, tracer: Tracer, number: int) -> None:
        context = Context() if self.parent is None else set_span_in_context(NonRecordingSpan(self.parent), Context())
        with wanting(trace_id=TRACE, span_id=f"{number:016x}"):
            links = [Link(place, dict(about)) for place, about in self.links[:1]]  # type: ignore[arg-type]
            span = tracer.start_span(self.name, context, self.kind, self.attributes, links, 1_000)  # type: ignore[arg-type]
        span.set_attributes(self.more)  # type: ignore[arg-type]
        for name, at, about in self.events:
            span.add_event(name, about, at)  # type: ignore[arg-type]
        for place, about in self.links[1:]:
            span.add_link(place, about)  # type: ignore[arg-type]
        span.set_status(*self.status)
        span.end(2_000)


told = st.builds(
    Told,
    texts.filter(bool),
    st.sampled_from(SpanKind),
    st.none() | places,
    said,
    said,
    st.lists(st.tuples(texts, st.integers(0, 2**63), said), max_size=3),
    st.lists(st.tuples(places, said), max_size=3),
    st.tuples(st.sampled_from(StatusCode), st.none()) | st.tuples(st.just(StatusCode.ERROR), texts),
)
