"""How many spans go in one request."""

import pytest

from agentstream.infra.telemetry import processors
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import open_telemetry
from tests.support.otel import set_otel, span
from tests.support.otlp_receiver import Manner, OtlpReceiver


async def test_what_does_not_fill_a_request_waits_for_more_although_others_are_sent(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK's flush sent what had come during the last request: a hundred small ones a second, dearer than the spans.
    monkeypatch.setattr(processors, "GATHER_SECONDS", 3_600.0)
    set_otel(monkeypatch, receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10", OTEL_METRICS_EXPORTER="none")
    async with open_telemetry(telemetry_settings()) as telemetry:

        def end(count: int) -> None:
            for number in range(count):
                span(telemetry, f"s{number}")
                telemetry.flush()

        receiver.manner = Manner(hang=True)
        end(10)
        await receiver.until(lambda: receiver.hanging == 1, "the first export is under way")
        end(25)
        receiver.release()
        await receiver.until(lambda: len(receiver.spans) == 30, "full ones are sent")
        end(5)
        await receiver.until(lambda: len(receiver.spans) == 40, "and another one")
    assert [len(asked.spans) for asked in receiver.requests] == [10, 10, 10, 10]
