"""The end of a process whose collector does not take its spans: it is not held up, and the log says what was lost."""

import io

import pytest

from agentstream.infra.telemetry import opening
from tests.support.exports import FOR_EVER, last_line, lines, opened, said, sent
from tests.support.otel import span
from tests.support.otlp_receiver import Manner, OtlpReceiver

__all__ = ["lines"]


async def test_a_collector_that_hangs_holds_up_the_end_no_longer_than_the_bound(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    monkeypatch.setattr(opening, "CLOSE_SECONDS", 0.2)
    receiver.manner = Manner(hang=True)
    variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": FOR_EVER, "OTEL_METRICS_EXPORTER": "otlp"}
    async with opened(monkeypatch, receiver, **variables) as telemetry:
        telemetry.meter_provider.get_meter("tests").create_counter("c").add(1)
        for number in range(3):
            span(telemetry, f"s{number}")
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging >= 1, "an export hangs")
    assert receiver.hanging >= 1  # nobody waited for its answer
    losses = telemetry.losses["default"]
    assert (losses.exported, losses.dropped) == (0, 3)
    assert [text for _, text in said(lines)] == [last_line(f"{receiver.endpoint}/v1/traces", 0, 0, 3, of=3)]
    receiver.release()
    await receiver.until(lambda: receiver.hanging == 0, "it answers")
    assert telemetry.losses["default"] == losses  # a late answer changes no books that are closed


async def test_the_last_line_counts_all_that_was_lost_before_and_why(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    # It told only what still waited: of 900 dropped ones before, not a word was left in the log of a worker that ended.
    monkeypatch.setattr(opening, "LOSING_SECONDS", 0.1)
    async with opened(
        monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT=FOR_EVER, OTEL_BSP_MAX_QUEUE_SIZE="10"
    ) as telemetry:
        await sent(telemetry, receiver, "arrives")
        receiver.manner = Manner(status=400)
        await sent(telemetry, receiver, "refused")
        receiver.manner = Manner(hang=True)
        span(telemetry, "hangs")
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging == 1, "an export hangs")
        for number in range(14):
            span(telemetry, f"s{number}")
    span(telemetry, "after the end")
    losses = telemetry.losses["default"]
    assert (losses.exported, losses.failed, losses.dropped) == (1, 1, 16)
    assert said(lines)[1:] == [
        (
            "warning",
            last_line(f"{receiver.endpoint}/v1/traces", 1, 5, 10, of=17),
        )
    ]


async def test_a_collector_that_takes_nothing_already_is_not_waited_for_as_long(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CLOSE_SECONDS", 3_600.0)
    monkeypatch.setattr(opening, "LOSING_SECONDS", 0.1)
    receiver.manner = Manner(status=400)
    async with opened(monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT=FOR_EVER) as telemetry:
        await sent(telemetry, receiver, "a")
        receiver.manner = Manner(hang=True)
        span(telemetry, "b")
        telemetry.flush()
        await receiver.until(lambda: receiver.hanging == 1, "an export hangs")
    assert receiver.hanging == 1
    assert telemetry.losses["default"].lost == 2


async def test_a_collector_that_is_down_at_the_end_holds_nothing_up_and_the_loss_is_told(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    monkeypatch.setattr(opening, "CLOSE_SECONDS", 0.2)
    receiver.stop()
    async with opened(monkeypatch, receiver, OTEL_EXPORTER_OTLP_TIMEOUT=FOR_EVER) as telemetry:
        span(telemetry, "a")
    assert telemetry.losses["default"].lost == 1
    assert len(said(lines)) == 1
