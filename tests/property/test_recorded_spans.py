"""Spans as they are recorded and encoded here, against the SDK's own spans and the official encoder."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
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
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.infra.telemetry.delivery import Delivery, Room
from agentstream.infra.telemetry.encoding import OtlpSpanExporter
from agentstream.infra.telemetry.exporters import CountingSpanExporter
from agentstream.infra.telemetry.recorded import RecordedSpan
from tests.support.recorded_spans import TRACE, Told, both, environment, places, said, same, told

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)


@given(st.lists(told, min_size=1, max_size=4))
@settings(max_examples=200)
def test_spans_are_recorded_and_encoded_as_the_sdk_does_it(scripts: list[Told]) -> None:
    def act(tracer: Tracer) -> None:
        for number, script in enumerate(scripts, 1):
            script.play(tracer, number)

    assert same(act) == len(scripts)


@given(st.lists(st.tuples(said, said, places), min_size=1, max_size=4), said)
@settings(max_examples=100)
def test_spans_that_share_attributes_are_recorded_and_encoded_as_the_sdk_does_it(
    spans: list[tuple[dict[str, object], dict[str, object], SpanContext]], shared: dict[str, object]
) -> None:
    all_share = {f"all {name}": value for name, value in shared.items()}

    def act(tracer: Tracer) -> None:
        make = SpanMaker(tracer=tracer)
        for number, (own, more, above) in enumerate(spans, 1):
            some_share = {f"some {name}": value for name, value in more.items()}
            for each in (number, number + 100):
                span = make.start(
                    "ä",
                    above,
                    {**own},  # type: ignore[dict-item]
                    shared=(all_share, some_share),  # type: ignore[arg-type]
                    at=1_000,
                    kind=SpanKind.CLIENT,
                    span_id=each,
                    links=[Link(above, {"a": "b"})],
                )
                span.set({f"more {name}": value for name, value in more.items()})  # type: ignore[misc]
                span.event("e", 1_500)
                span.end(2_000)

    assert same(act) == 2 * len(spans)
    with environment(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="3"):
        assert same(act) == 2 * len(spans)


@pytest.mark.parametrize("sampled", [0, 2])
def test_below_a_span_that_is_not_sampled_nothing_is_recorded(sampled: int) -> None:
    above = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(sampled))

    def act(tracer: Tracer) -> None:
        span = SpanMaker(tracer=tracer).start("a", above, {}, at=1, span_id=3)
        assert span.place == SpanContext(7, 3, is_remote=False, trace_flags=TraceFlags(sampled))
        assert not span.is_recording
        span.end(2)

    assert same(act) == 0


def test_a_span_that_cannot_be_written_is_lost_alone() -> None:
    delivery = Delivery("d", "spans", "there", room=Room(count=9, size=9_999))
    exporter = CountingSpanExporter(OtlpSpanExporter(endpoint="http://127.0.0.1:9/v1/traces"), delivery)
    kept: list[object] = []

    def act(tracer: Tracer) -> None:
        for start in (1, -1, 2):
            tracer.start_span("a", Context(), start_time=start).end(3)

    for span in both(act)[1]:
        assert isinstance(span, RecordedSpan)
        kept.append(exporter.waiting(span))
    assert [each is not None for each in kept] == [True, False, True]
    assert (delivery.losses.failed, delivery.pending) == (1, 0)


@pytest.mark.parametrize("longest", ["5", ""])
@given(script=told.filter(lambda script: not set(script.attributes) & set(script.more)))
@settings(max_examples=100)
def test_limits_that_variables_set_are_kept_as_the_sdk_keeps_them(longest: str, script: Told) -> None:
    with environment(
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="3",
        OTEL_SPAN_EVENT_COUNT_LIMIT="2",
        OTEL_SPAN_LINK_COUNT_LIMIT="1",
        OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT="2",
        OTEL_LINK_ATTRIBUTE_COUNT_LIMIT="1",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=longest,
    ):
        assert same(lambda tracer: script.play(tracer, 1)) == 1


@pytest.mark.parametrize("over", ["attributes", "events", "links"])
def test_what_is_beyond_one_limit_alone_is_counted_as_in_the_sdk(over: str) -> None:
    def act(tracer: Tracer) -> None:
        with wanting(trace_id=TRACE, span_id="1".zfill(16)):
            span = tracer.start_span("a", Context(), start_time=1)
        for number in range(1, 5):
            if over == "attributes":
                span.set_attribute(str(number), number)
            elif over == "events":
                span.add_event("e", None, number)
            else:
                span.add_link(SpanContext(1, number, is_remote=True))
        span.end(2)

    with environment(
        **dict.fromkeys((f"OTEL_SPAN_{each}_COUNT_LIMIT" for each in ("ATTRIBUTE", "EVENT", "LINK")), "3")
    ):
        assert same(act) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(trace=st.integers(1, 2**128 - 1), above=st.sampled_from((None, 0, 1, 2, 3, 0x81)), is_remote=st.booleans())
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
    assert [span.is_sampled for span in ours if isinstance(span, RecordedSpan)] == [True, False, True]


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
    counting = CountingSpanExporter(exporter, Delivery("d", "spans", "there", room=Room(count=9, size=9_999)))
    span = both(lambda tracer: tracer.start_span("a", Context()).end())[1][0]
    assert isinstance(span, RecordedSpan)
    assert counting.waiting(span) is span
    counting.export([span])
    assert given == [[span]]
