"""A collector that is down, hangs, refuses or lies: nothing waits for it, memory is bounded, the loss is told."""

import io
import json
from pathlib import Path

import pytest

from agentstream.infra.connection import redactor
from agentstream.infra.logs import configure_logs
from agentstream.infra.settings import Settings
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import open_telemetry
from tests.support.exports import FOR_EVER, last_line, lines, opened, said, sent
from tests.support.otel import set_otel, span
from tests.support.otlp_receiver import Manner, OtlpReceiver

__all__ = ["lines"]
KEY = "canary-secret-0123456789"


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (Manner(status=400), "HTTP 400"),
        (Manner(status=401), "HTTP 401"),
        (Manner(status=404), "HTTP 404"),
        (Manner(status=413), "HTTP 413"),
        (Manner(status=500), "HTTP 500"),
        (Manner(status=503), "HTTP 503"),
        (Manner(status=429, headers={"Retry-After": "3600"}), "HTTP 429"),
        (Manner(cut=True), "ConnectionError"),
        # The exporter calls this a success, and what it sent is nowhere.
        (Manner(status=301, headers={"Location": "https://127.0.0.1/v1/traces"}), "HTTP 301"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refusal_is_told_once_counted_each_time_and_its_end_told_once(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO, manner: Manner, reason: str
) -> None:
    # What may be tried again is tried for as long as this; what may not must not fail for a busy machine instead.
    patience = "1" if manner.cut or manner.status in {429, 500, 503} else "10"
    async with opened(monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT=patience) as telemetry:
        receiver.manner = manner
        for number in range(3):
            await sent(telemetry, receiver, f"lost {number}")
        receiver.manner = Manner()
        await sent(telemetry, receiver, "kept 1")
        await sent(telemetry, receiver, "kept 2")
        losses = telemetry.losses["default"]
        state = telemetry.state()["default"]
    assert [each.name for each in receiver.spans] == ["kept 1", "kept 2"]
    assert (losses.exported, losses.failed, losses.dropped) == (2, 3, 0)
    where = f"{receiver.endpoint}/v1/traces"
    assert said(lines) == [
        ("warning", f"spans are lost on the way to {where}: {reason}; runs are not affected"),
        ("info", f"spans reach {where} again; 3 were lost meanwhile"),
    ]
    assert isinstance(state, dict)
    assert (state["losing"], state["failed"]) == (None, 3)


async def test_a_collector_that_is_down_is_told_once_and_its_return_once(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    async with opened(monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT="0.3") as telemetry:
        await sent(telemetry, receiver, "before")
        receiver.stop()
        await sent(telemetry, receiver, "lost 1")
        await sent(telemetry, receiver, "lost 2")
        state = telemetry.state()["default"]
        receiver.start()
        await sent(telemetry, receiver, "after")
    assert [each.name for each in receiver.spans] == ["before", "after"]
    assert isinstance(state, dict)
    assert state["losing"] == "ConnectionError"
    assert [(level, text.rpartition("; ")[2]) for level, text in said(lines)] == [
        ("warning", "runs are not affected"),
        ("info", "2 were lost meanwhile"),
    ]


async def test_what_waits_while_the_collector_is_gone_for_a_moment_is_not_lost(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    receiver.manner = Manner(status=503)
    async with opened(monkeypatch, receiver) as telemetry:
        span(telemetry, "a")
        telemetry.flush()
        await receiver.until(lambda: len(receiver.requests) == 1, "it is refused once")
        receiver.manner = Manner()
        await receiver.until(lambda: len(receiver.spans) == 1, "it arrives at last")
    assert telemetry.losses["default"].lost == 0
    assert said(lines) == []


async def test_spans_that_an_answer_of_success_rejects_are_lost(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    async with opened(monkeypatch, receiver) as telemetry:
        receiver.manner = Manner(rejected=2)
        for number in range(5):
            span(telemetry, f"s{number}")
        telemetry.flush()
        await receiver.until(lambda: telemetry.losses["default"].exported > 0, "it is counted")
        losses = telemetry.losses["default"]
    assert (losses.exported, losses.failed) == (3, 2)
    assert len(receiver.spans) == 3
    assert [text for _, text in said(lines)] == [
        f"spans are lost on the way to {receiver.endpoint}/v1/traces: some are rejected; runs are not affected",
        last_line(f"{receiver.endpoint}/v1/traces", 2, 0, 0, of=5),
    ]


async def test_while_a_collector_hangs_spans_end_at_once_and_what_does_not_fit_is_dropped_and_counted(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    patience = {"OTEL_EXPORTER_OTLP_TIMEOUT": FOR_EVER}
    async with opened(
        monkeypatch, receiver, OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10", **patience
    ) as telemetry:
        receiver.manner = Manner(hang=True)
        span(telemetry, "first")
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging == 1, "an export hangs")
        for number in range(1_000):
            span(telemetry, f"s{number}")
            telemetry.flush()
        # All of that happened while the same export hung: nothing waited for it.
        assert (receiver.hanging, len(receiver.requests)) == (1, 1)
        delivery = telemetry.deliveries[0]
        assert (delivery.pending, delivery.losses.dropped) == (100, 901)
        receiver.release()
        await receiver.until(lambda: delivery.pending == 0, "what fitted is exported")
        await sent(telemetry, receiver, "after")
    losses = telemetry.losses["default"]
    assert (losses.exported, losses.failed, losses.dropped) == (101, 0, 901)
    assert len(receiver.spans) == 101
    assert [(level, text.rpartition(": ")[2]) for level, text in said(lines)] == [
        ("warning", "more than 100 wait; runs are not affected"),
        ("info", f"spans reach {receiver.endpoint}/v1/traces again; 901 were lost meanwhile"),
    ]


async def test_large_spans_leave_in_requests_that_a_collector_takes_and_hold_no_more_memory_than_the_bound(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With content captured a span may hold 250 kB: 512 of them in one request are refused by any collector, 2,048 that
    # wait are half a gigabyte.
    receiver.manner = Manner(hang=True)
    async with opened(monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT=FOR_EVER) as telemetry:
        tracer = telemetry.tracer_provider.get_tracer("tests")
        for number in range(400):
            texts = {"input": f"{number:06}" * 25_000, "outputs": ["x" * 50_000] * 2}
            tracer.start_span(f"s{number}", attributes=texts).end()
        held = telemetry.deliveries[0].pending
        assert 200 < held < 300  # of 64 MiB
        assert telemetry.losses["default"].dropped == 400 - held
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging == 1, "the first are under way")
        receiver.release()
        await receiver.until(lambda: len(receiver.spans) == held, "all that was held arrives")
        await receiver.until(lambda: telemetry.deliveries[0].pending == 0, "and is counted")
    assert max(int(asked.headers["content-length"]) for asked in receiver.requests) < 5 * 1024 * 1024
    assert telemetry.losses["default"].exported == held


async def test_measurements_that_do_not_arrive_are_told_as_well(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    receiver.manner = Manner(status=400)
    set_otel(monkeypatch, receiver, OTEL_TRACES_EXPORTER="none", OTEL_METRIC_EXPORT_INTERVAL="20")
    async with open_telemetry(telemetry_settings(), calm_s=0.0) as telemetry:
        telemetry.meter_provider.get_meter("tests").create_counter("c").add(1)
        await receiver.until(lambda: len(receiver.requests) >= 3, "several exports are refused")
        receiver.manner = Manner()
        await receiver.until(lambda: len(receiver.points) > 0, "one is taken")
        await receiver.until(lambda: telemetry.losses["metrics"].exported > 0, "it is counted")
    assert telemetry.losses["metrics"].failed >= 3
    where = f"{receiver.endpoint}/v1/metrics"
    assert [text.partition(": ")[0].partition(";")[0] for _, text in said(lines)] == [
        f"measurements are lost on the way to {where}",
        f"measurements reach {where} again",
    ]
    exported = [point for point in receiver.points if point.name == "otel.sdk.exporter.metric_data_point.exported"]
    assert {point.attributes.get("error.type") for point in exported} == {None, "export_failed"}


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_what_stands_in_headers_and_urls_is_never_shown(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO, level: str
) -> None:
    receiver.manner = Manner(status=401)
    endpoint = receiver.endpoint.replace("http://", f"http://user:{KEY}@")
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={KEY},{KEY} and no name"}
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2", **headers}
    set_otel(monkeypatch, receiver, **variables)
    configure_logs(level, log_format="json", stream=lines, redactor=redactor(Settings()))
    async with opened(monkeypatch, receiver, **variables) as telemetry:
        await sent(telemetry, receiver, "a")
        state = json.dumps(telemetry.state())
    assert receiver.requests[0].headers["x-api-key"] == KEY
    ours = [line["event"] for line in map(json.loads, lines.getvalue().splitlines()) if "agentstream" in line["logger"]]
    assert [text.partition(":")[0] for text in ours] == [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "spans are lost on the way to http",
        "spans are lost on the way to http",
    ]
    assert ("opentelemetry" in lines.getvalue()) == (level == "debug")
    assert KEY not in lines.getvalue() + state


async def test_a_disk_that_takes_no_spans_is_told_as_a_collector_is(
    monkeypatch: pytest.MonkeyPatch, lines: io.StringIO, tmp_path: Path
) -> None:
    set_otel(monkeypatch, None)
    async with open_telemetry(telemetry_settings(), trace_dir=tmp_path / "spans") as telemetry:
        (tmp_path / "spans" / "spans.jsonl").mkdir()
        span(telemetry, "a")
    assert telemetry.losses["file"].failed == 1
    assert [text for _, text in said(lines)] == [
        f"spans are lost on the way to {tmp_path / 'spans'}: IsADirectoryError; runs are not affected",
        last_line(tmp_path / "spans", 1, 0, 0, of=1),
    ]
