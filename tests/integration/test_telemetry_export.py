"""Exports by the real exporters to a collector on loopback: what arrives, and what the OTEL_* variables decide."""

import asyncio
import logging
import sys
import threading

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import Link, NoOpTracerProvider, SpanKind, Status, StatusCode, set_span_in_context

from agentstream.consumers.tracing.ids import wanting
from agentstream.infra.telemetry import processors
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import open_telemetry
from tests.support.otel import set_otel, span
from tests.support.otlp_receiver import Manner, OtlpReceiver
from tests.support.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_spans_arrive_as_they_were_made_once_a_flush_is_asked_for(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The processor's own clock never exports anything here: only the flush does.
    set_otel(monkeypatch, receiver, OTEL_BSP_SCHEDULE_DELAY="3600000")
    async with open_telemetry(telemetry_settings()) as telemetry:
        tracer = telemetry.tracer_provider.get_tracer("agentstream")
        with wanting(trace_id=TRACE, span_id=SPAN):
            root = tracer.start_span("process", kind=SpanKind.CONSUMER, attributes={"a": 1, "b": ["x", "y"]})
        child = tracer.start_span(
            "chat", set_span_in_context(root), links=[Link(root.get_span_context(), {"why": "r"})]
        )
        child.add_event("first chunk", {"n": 2}, timestamp=child.start_time + 5)  # type: ignore[attr-defined]
        child.set_status(Status(StatusCode.ERROR, "it broke"))
        child.end()
        root.end()
        telemetry.flush()
        await receiver.until(lambda: len(receiver.spans) == 2, "both arrive")
        # The collector has them before its answer is here.
        await eventually(lambda: telemetry.losses["default"].exported == 2, "the books have them")
    process, chat = receiver.named("process"), receiver.named("chat")
    assert (process.trace_id, process.span_id, process.parent_id, process.kind) == (TRACE, SPAN, None, "consumer")
    assert process.attributes == {"a": 1, "b": ["x", "y"]}
    assert (chat.trace_id, chat.parent_id, chat.kind) == (TRACE, SPAN, "internal")
    assert chat.span_id not in (SPAN, "0" * 16)
    assert (chat.status, chat.status_detail) == ("error", "it broke")
    assert [(event.name, event.attributes, event.time_ns) for event in chat.events] == [
        ("first chunk", {"n": 2}, chat.start_ns + 5)
    ]
    assert [(link.span_id, link.attributes) for link in chat.links] == [(SPAN, {"why": "r"})]
    assert process.resource["service.name"] == "agentstream-worker"
    assert process.scope == "agentstream"


async def test_what_is_queued_at_the_end_is_exported(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, receiver, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10")
    async with open_telemetry(telemetry_settings()) as telemetry:
        for number in range(35):
            span(telemetry, f"s{number}")
    assert {each.name for each in receiver.spans} == {f"s{number}" for number in range(35)}
    assert telemetry.losses["default"].lost == 0


async def test_the_variables_headers_name_attributes_and_compression_are_honoured(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(
        monkeypatch,
        receiver,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20abc,x-project=demo",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="mine",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=other",
    )
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
    (asked,) = [each for each in receiver.requests if each.spans]
    assert asked.path == "/v1/traces"
    assert asked.headers["authorization"] == "Bearer abc"
    assert (asked.headers["x-project"], asked.headers["content-encoding"]) == ("demo", "gzip")
    assert receiver.named("a").resource["service.name"] == "mine"
    assert receiver.named("a").resource["deployment.environment.name"] == "test"


async def test_a_name_in_the_resource_attributes_wins_over_ours(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_RESOURCE_ATTRIBUTES="service.name=theirs")
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
    assert receiver.named("a").resource["service.name"] == "theirs"


async def test_a_signals_own_endpoint_is_taken_as_it_stands(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, None, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.endpoint}/api/otel/v1/traces")
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
    assert [asked.path for asked in receiver.requests] == ["/api/otel/v1/traces"]
    assert "metrics" not in telemetry.losses


async def test_without_an_endpoint_nothing_is_opened_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_otel(monkeypatch, None, OTEL_TRACES_EXPORTER="otlp")
    threads = threading.active_count()
    async with open_telemetry(telemetry_settings()) as telemetry:
        assert isinstance(telemetry.tracer_provider, NoOpTracerProvider)
        assert isinstance(telemetry.meter_provider, NoOpMeterProvider)
        span(telemetry, "a")
        telemetry.flush()
        assert threading.active_count() == threads
        assert telemetry.state() == {}
    assert caplog.records == []


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
async def test_what_is_switched_off_or_not_sampled_is_not_sent(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    set_otel(monkeypatch, receiver, **variables)
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
        telemetry.flush()
    assert receiver.requests == []
    assert all(losses.lost == 0 for losses in telemetry.losses.values())


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: only http/protobuf is spoken here",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER: there is no exporter `console`"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: must be a URL"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "spans are not exported"),
        (
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRICS_EXEMPLAR_FILTER": "many"},
            "measurements are not kept",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "0"},
            "measurements are not exported",
        ),
    ],
)
async def test_a_variable_that_cannot_be_used_is_a_line_and_no_traceback(
    receiver: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    said: str,
) -> None:
    set_otel(monkeypatch, receiver, **{"OTEL_METRICS_EXPORTER": "none", **variables})
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
        telemetry.flush()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].getMessage().startswith(said)
    assert lines[0].exc_info is None
    assert receiver.requests == []


async def test_variables_that_cannot_be_used_are_named_and_spans_are_exported_nevertheless(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_otel(
        monkeypatch,
        receiver,
        OTEL_BSP_MAX_QUEUE_SIZE="5",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="50",
        OTEL_BSP_SCHEDULE_DELAY="soon",
        OTEL_EXPORTER_OTLP_COMPRESSION="lz4",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="10s",
        OTEL_METRICS_EXPORTER="none",
    )
    async with open_telemetry(telemetry_settings()) as telemetry:
        span(telemetry, "a")
    assert [each.name for each in receiver.spans] == ["a"]
    assert [
        record.getMessage().partition(":")[0] for record in caplog.records if record.name.startswith("agentstream")
    ] == [
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    ]


async def test_many_runs_that_end_at_once_are_few_exports(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_METRICS_EXPORTER="none")
    async with open_telemetry(telemetry_settings()) as telemetry:
        receiver.manner = Manner(hang=True)
        span(telemetry, "first")
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging == 1, "the first export is under way")
        for number in range(299):
            span(telemetry, f"s{number}")
            telemetry.flush()
        receiver.release()
        await receiver.until(lambda: len(receiver.spans) == 300, "all arrive")
    assert [len(asked.spans) for asked in receiver.requests] == [1, 299]


async def test_a_flush_gathers_what_ends_shortly_after_and_the_end_does_not_wait_for_that(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "GATHER_SECONDS", 3_600.0)
    set_otel(monkeypatch, receiver, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_METRICS_EXPORTER="none")
    async with open_telemetry(telemetry_settings()) as telemetry:
        for number in range(3):
            span(telemetry, f"s{number}")
            telemetry.flush()
            await asyncio.to_thread(sum, range(100_000))  # the flushing thread has its turn
    assert [len(asked.spans) for asked in receiver.requests] == [3]


async def test_the_event_loop_has_its_turn_often_while_spans_are_exported_and_only_then(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = sys.getswitchinterval()
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none")
    async with open_telemetry(telemetry_settings()):
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    assert sys.getswitchinterval() == usual
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with open_telemetry(telemetry_settings()):
        assert sys.getswitchinterval() == usual


async def test_measurements_arrive_by_otlp_and_stand_on_the_page(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver)
    async with open_telemetry(telemetry_settings(), metrics_page=True) as telemetry:
        meter = telemetry.meter_provider.get_meter("agentstream")
        meter.create_counter("runs", "{run}").add(3, {"status": "completed"})
        meter.create_histogram("gen_ai.client.operation.duration", "s").record(0.5)
        span(telemetry, "a")
        telemetry.flush()
        await receiver.until(lambda: len(receiver.spans) == 1, "the span arrives")
        assert telemetry.metrics_text is not None
        await eventually(lambda: telemetry.losses["default"].exported == 1, "the books have it")
        page = telemetry.metrics_text().decode()
    assert 'runs_total{status="completed"} 3.0' in page
    assert "gen_ai_client_operation_duration_seconds_count 1.0" in page
    assert 'otel_sdk_exporter_span_exported_total{error_type="",otel_component_name="default"} 1.0' in page
    (runs,) = [point for point in receiver.points if point.name == "runs"]
    assert (runs.value, runs.attributes, runs.kind) == (3, {"status": "completed"}, "sum")
    assert runs.resource["service.name"] == "agentstream-worker"
    (duration,) = [point for point in receiver.points if point.name == "gen_ai.client.operation.duration"]
    assert (duration.count, duration.value, duration.kind) == (1, 0.5, "histogram")


@pytest.mark.parametrize(
    ("exporter", "by_otlp", "on_the_page"),
    [("", True, True), ("otlp", True, False), ("prometheus", False, True), ("none", False, False)],
)
async def test_the_metrics_exporter_variable_says_who_gets_them(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, exporter: str, by_otlp: bool, on_the_page: bool
) -> None:
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER=exporter)
    async with open_telemetry(telemetry_settings(), metrics_page=True) as telemetry:
        telemetry.meter_provider.get_meter("agentstream").create_counter("runs").add(1)
        assert (telemetry.metrics_text is not None) == on_the_page
    assert any(point.name == "runs" for point in receiver.points) == by_otlp
