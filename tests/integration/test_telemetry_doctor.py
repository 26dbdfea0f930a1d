"""What doctor says about where spans and measurements go."""

import pytest

from agentstream.infra.doctor import Check, examine
from agentstream.infra.settings import Settings, TraceTargetSettings
from agentstream.infra.settings_file import SettingsError
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics
from tests.support.otel import set_otel
from tests.support.otlp_receiver import Manner, OtlpReceiver

KEY = "canary-secret-0123456789"
LOST = "runs are not affected, but what they report is lost."


def _no_broker() -> tuple[KafkaConnection, Topics]:
    raise SettingsError("none here")


async def found(**targets: dict[str, object]) -> dict[str, tuple[str, str, str]]:
    """What doctor finds about telemetry: verdict, what is there, what to do; by name."""
    settings = Settings(
        harnesses=("scripted",),
        trace_targets={name: TraceTargetSettings.model_validate(given) for name, given in targets.items()},
    )
    checks: list[Check] = [check async for check in examine(settings, _no_broker)]
    assert KEY not in repr(checks)
    about = [check for check in checks if check.name.split(" ")[0] in ("traces", "metrics", "telemetry", "trace")]
    return {check.name: (check.verdict, check.found, check.advice) for check in about}


async def test_without_an_endpoint_that_is_all_there_is_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, None)
    assert await found() == {
        "traces": ("ok", "not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set", ""),
        "metrics": ("ok", "not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set", ""),
    }


async def test_what_is_switched_off_is_not_asked(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, receiver, OTEL_SDK_DISABLED="true")
    assert await found() == {"traces": ("ok", "off, by OTEL_SDK_DISABLED", "")}
    set_otel(monkeypatch, receiver, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="prometheus")
    assert await found() == {
        "traces": ("ok", "not exported: OTEL_TRACES_EXPORTER=none", ""),
        "metrics": ("ok", "not exported: OTEL_METRICS_EXPORTER=prometheus", ""),
    }
    assert receiver.requests == []


async def test_a_collector_that_answers_is_asked_with_the_headers_and_gets_nothing(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {KEY}")
    assert await found(tenant={"endpoint": receiver.endpoint, "authorization": f"Basic {KEY}"}) == {
        "traces": ("ok", f"{receiver.endpoint}/v1/traces takes them", ""),
        "metrics": ("ok", f"{receiver.endpoint}/v1/metrics takes them", ""),
        "traces of tenant": ("ok", f"{receiver.endpoint}/v1/traces takes them", ""),
    }
    assert [asked.headers["authorization"] for asked in receiver.requests] == [
        f"Bearer {KEY}",
        f"Bearer {KEY}",
        f"Basic {KEY}",
    ]
    assert (receiver.spans, receiver.points) == ([], [])


@pytest.mark.parametrize(
    ("manner", "said", "advice"),
    [
        (Manner(status=401), "refuses (HTTP 401)", "OTEL_EXPORTER_OTLP_HEADERS"),
        (Manner(status=403), "refuses (HTTP 403)", "OTEL_EXPORTER_OTLP_HEADERS"),
        (Manner(status=404), "does not take them (HTTP 404)", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Manner(status=301), "does not take them (HTTP 301)", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Manner(status=500), "does not take them (HTTP 500)", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Manner(cut=True), "does not answer (ConnectionError)", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
async def test_a_collector_that_takes_nothing_is_a_warning_that_says_what_to_look_at(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, manner: Manner, said: str, advice: str
) -> None:
    monkeypatch.setattr("agentstream.infra.telemetry.probing.PATIENCE_S", 0.3)
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none", OTEL_EXPORTER_OTLP_HEADERS=f"x-key={KEY}")
    receiver.manner = manner
    checks = await found()
    assert checks["traces"] == ("warning", f"{receiver.endpoint}/v1/traces {said}", f"Check {advice}: {LOST}")


async def test_a_target_that_refuses_is_named(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, None)
    receiver.manner = Manner(status=401)
    checks = await found(tenant={"endpoint": receiver.endpoint, "headers": {"x-key": KEY}})
    assert checks["traces of tenant"] == (
        "warning",
        f"{receiver.endpoint}/v1/traces refuses (HTTP 401)",
        f"Check the target's headers: {LOST}",
    )
    unset = await found(tenant={"endpoint": receiver.endpoint, "authorization_env": "NOT_SET_ANYWHERE"})
    assert unset["trace targets"][0] == "broken"


async def test_a_variable_that_cannot_be_used_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, None, OTEL_EXPORTER_OTLP_ENDPOINT="127.0.0.1:4318", OTEL_METRICS_EXPORTER="none")
    assert (await found())["telemetry"] == (
        "warning",
        "OTEL_EXPORTER_OTLP_ENDPOINT: must be a URL such as http://127.0.0.1:4318; traces are not exported",
        "Correct or unset it.",
    )


async def test_every_variable_that_is_misread_is_a_line(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Doctor was silent, and what was exported was not what was asked for.
    set_otel(
        monkeypatch,
        receiver,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="10",
        OTEL_PROPAGATORS="b3multi",
        OTEL_SPAN_LINK_COUNT_LIMIT="many",
        OTEL_EXPORTER_OTLP_HEADERS=f"x-key={KEY};x-other={KEY}",
        OTEL_METRICS_EXPORTER="none",
    )
    settings = Settings(harnesses=("scripted",))
    lines = [check.found async for check in examine(settings, _no_broker) if check.name == "telemetry"]
    assert lines == [
        (
            "OTEL_EXPORTER_OTLP_HEADERS: must be name=value, several separated by commas, other characters as %3B; "
            "a part is not and is left out"
        ),
        "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1; 1 takes effect: every trace is kept",
        "OTEL_PROPAGATORS: has no effect here; tracecontext and baggage are read and written, nothing else",
        "OTEL_SPAN_LINK_COUNT_LIMIT: must be a whole number, or empty for no limit; spans are not exported",
    ]
    assert "x-key" not in receiver.requests[0].headers
