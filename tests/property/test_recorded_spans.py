"""Spans as they are recorded and encoded here, against the SDK's own spans and the official encoder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from agentstream.consumers.tracing.ids import wanting
from agentstream.infra.telemetry.encoding import OtlpSpanExporter, request_of
from agentstream.infra.telemetry.ids import WantedIds
from agentstream.infra.telemetry.processors import RoutedProcessor
from agentstream.infra.telemetry.recording import RecordingProvider

Act = Callable[[Tracer], None]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)


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
        assert sorted_out(ExportTraceServiceRequest.FromString(request_of(ours))) == sorted_out(encode_spans(theirs))
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


@given(st.lists(told, min_size=1, max_size=4))
@settings(max_examples=200)
def test_spans_are_recorded_and_encoded_as_the_sdk_does_it(scripts: list[Told]) -> None:
    def act(tracer: Tracer) -> None:
        for number, script in enumerate(scripts, 1):
            script.play(tracer, number)

    assert same(act) == len(scripts)


@given(told.filter(lambda script: not set(script.attributes) & set(script.more)))
@settings(max_examples=100)
def test_limits_that_variables_set_are_kept_as_the_sdk_keeps_them(script: Told) -> None:
    with environment(
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="3",
        OTEL_SPAN_EVENT_COUNT_LIMIT="2",
        OTEL_SPAN_LINK_COUNT_LIMIT="1",
        OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT="2",
        OTEL_LINK_ATTRIBUTE_COUNT_LIMIT="1",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="5",
    ):
        assert same(lambda tracer: script.play(tracer, 1)) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(trace=st.integers(1, 2**128 - 1), above=st.sampled_from((None, 0, 1)), is_remote=st.booleans())
@settings(max_examples=30)
def test_the_sampler_decides_as_in_the_sdk_also_below_our_own_spans(
    sampler: str, trace: int, above: int | None, is_remote: bool
) -> None:
    places: list[list[tuple[SpanContext, bool]]] = []

    def act(tracer: Tracer) -> None:
        parent = SpanContext(trace, 7, is_remote, TraceFlags(above or 0), TraceState([("a", "b")]))
        context = Context() if above is None else set_span_in_context(NonRecordingSpan(parent), Context())
        spans: list[Span] = []
        for number in range(1, 4):
            with wanting(trace_id=f"{trace:032x}", span_id=f"{number:016x}"):
                spans.append(tracer.start_span(f"s{number}", context, start_time=1))
            context = set_span_in_context(spans[-1], Context())
        places.append([(span.get_span_context(), span.is_recording()) for span in spans])
        for span in reversed(spans):
            span.end(2)

    with environment(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG="0.5"):
        same(act)
    theirs, ours = places
    assert ours == theirs


def fails_inside(tracer: Tracer) -> None:
    with wanting(trace_id=TRACE, span_id="1".zfill(16)):
        block = tracer.start_as_current_span("outer", Context(), start_time=1)
    with block:
        with wanting(span_id="2".zfill(16)):
            tracer.start_span("inner", start_time=1).end(2)
        raise ValueError("no")


class ByName(Sampler):
    """As somebody's own, named by OTEL_TRACES_SAMPLER, might be."""

    def should_sample(self, parent_context: Context | None, trace_id: int, name: str, *_: object) -> SamplingResult:
        return SamplingResult(Decision[name], {"said": name}, TraceState([("by", "name")]))

    def get_description(self) -> str:
        return "by name"


def test_a_sampler_of_ones_own_is_asked_for_each_span() -> None:
    places: list[list[tuple[SpanContext, bool]]] = []

    def act(tracer: Tracer) -> None:
        context, spans = Context(), list[Span]()
        for number, name in enumerate(("RECORD_AND_SAMPLE", "RECORD_ONLY", "DROP", "RECORD_AND_SAMPLE"), 1):
            with wanting(trace_id=TRACE, span_id=f"{number:016x}"):
                spans.append(tracer.start_span(name, context, start_time=1))
            context = set_span_in_context(spans[-1], Context())
        places.append([(span.get_span_context(), span.is_recording()) for span in spans])
        for span in spans:
            span.end(2)

    theirs, ours = both(act, ByName())
    assert [span.attributes for span in ours] == [dict(span.attributes or {}) for span in theirs]
    assert places[0] == places[1]
    assert [recording for _, recording in places[1]] == [True, True, False, True]


def test_a_current_span_is_the_parent_and_notes_what_is_raised() -> None:
    def act(tracer: Tracer) -> None:
        with pytest.raises(ValueError, match="no"):
            fails_inside(tracer)

    for inner, outer in both(act):
        assert inner.parent == outer.context
        assert (outer.status.status_code, outer.status.description) == (StatusCode.ERROR, "ValueError: no")
        (event,) = outer.events
        assert (event.attributes or {})["exception.message"] == "no"


def test_what_is_said_after_the_end_changes_nothing() -> None:
    def act(tracer: Tracer) -> None:
        with wanting(trace_id=TRACE, span_id="1".zfill(16)):
            span = tracer.start_span("a", Context(), start_time=1)
        span.end(2)
        span.set_attribute("a", 1)
        span.set_attributes({"b": 1})
        span.add_event("c", {}, 3)
        span.add_link(SpanContext(1, 1, is_remote=True))
        span.set_status(StatusCode.ERROR)
        span.update_name("d")
        span.end(4)

    assert same(act) == 1


def test_texts_of_any_length_are_written_as_the_official_encoder_does_it() -> None:
    def act(tracer: Tracer) -> None:
        for number, length in enumerate((1, 100, 115, *range(118, 132), 16_370, *range(16_374, 16_388), 70_000), 1):
            text = "ü" * (length // 2) + "x" * (length % 2)
            with wanting(trace_id=TRACE, span_id=f"{number:016x}"):
                link = Link(SpanContext(1, number, is_remote=True), {"a": text})
                span = tracer.start_span(text, Context(), links=[link], attributes={"a": text, "n": 1.5}, start_time=1)
            span.add_event(text, None, 3)
            span.add_event("with", {"a": text}, 3)
            span.end(4)

    assert same(act) == 33


def test_an_attribute_that_cannot_be_written_costs_no_other_its_place(caplog: pytest.LogCaptureFixture) -> None:
    def act(tracer: Tracer) -> None:
        with wanting(trace_id=TRACE, span_id="1".zfill(16)):
            tracer.start_span("a", Context(), attributes={"half": "\ud800", "huge": 2**70, "b": "c"}, start_time=1).end(
                2
            )

    assert same(act) == 1
    assert "left out" in caplog.text


def test_a_release_of_the_exporter_that_sends_otherwise_still_gets_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def export(_: OTLPSpanExporter, spans: object) -> SpanExportResult:
        given.append(spans)
        return SpanExportResult.SUCCESS

    exporter = OtlpSpanExporter(endpoint="http://127.0.0.1:9/v1/traces")
    assert hasattr(exporter, "_client"), "this release does: spans are encoded by it, which is dear"
    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    monkeypatch.delattr(exporter, "_client")
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert given == [[]]
