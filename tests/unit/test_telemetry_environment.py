import pytest

from agentstream.consumers.redaction import Redactor
from agentstream.infra.connection import redactor
from agentstream.infra.settings import Settings
from agentstream.infra.telemetry.environment import shown, telemetry_secrets, telemetry_settings

KEY = "canary-secret-0123456789"


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "http://a:1/v1/traces", "http://a:1/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1/x/"}, "http://a:1/x/v1/traces", "http://a:1/x/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://a/t"}, "https://a/t", None),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/"},
            "http://a:1/v1/traces",
            "http://m/",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_TRACES_EXPORTER": "none"}, None, "http://a:1/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_METRICS_EXPORTER": "none"}, "http://a:1/v1/traces", None),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "http://a:1/v1/traces",
            None,
        ),
    ],
)
def test_the_endpoints_are_those_that_the_exporters_would_choose(
    variables: dict[str, str], traces: str | None, metrics: str | None
) -> None:
    settings = telemetry_settings(variables)
    assert (settings.traces.endpoint, settings.metrics.endpoint) == (traces, metrics)


@pytest.mark.parametrize("wrong", ["localhost:4318", "grpc://a:1", "http://", "http://a:x", "http://a:0", "http://[a"])
def test_an_endpoint_that_is_no_url_is_a_problem_and_no_endpoint(wrong: str) -> None:
    settings = telemetry_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": wrong, "OTEL_METRICS_EXPORTER": "none"})
    assert settings.traces.endpoint is None
    assert settings.traces.problem
    assert len(settings.problems) == 1
    assert settings.problems[0].startswith("OTEL_EXPORTER_OTLP_ENDPOINT: must be a URL")


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown(f"https://user:{KEY}@host:8443/v1/traces?key={KEY}#{KEY}") == "https://host:8443/v1/traces"
    assert shown("http://[::1]:4318/v1/traces") == "http://[::1]:4318/v1/traces"
    assert shown("http://[") == "an unreadable URL"


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {KEY}"},
        {"OTEL_EXPORTER_OTLP_HEADERS": f"x-project=demo,authorization=Basic%20{KEY}"},
        {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"X-Api-Key={KEY}"},
        {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"x-anything={KEY}"},
        {"OTEL_EXPORTER_OTLP_HEADERS": KEY},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{KEY}@host"},
    ],
)
def test_secrets_in_the_variables_are_known_to_whoever_redacts(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert KEY not in redactor(Settings()).text(f"a line with {KEY} in it")


def test_what_is_no_secret_is_not_redacted() -> None:
    secrets = telemetry_secrets({"OTEL_EXPORTER_OTLP_HEADERS": "x-project=agentstream,authorization=Bearer 0123456789"})
    assert Redactor(secrets).text("agentstream says 0123456789") == "agentstream says [redacted]"
