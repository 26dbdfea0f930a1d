"""OpenTelemetry's variables, and a span to send."""

import os

import pytest

from agentstream.infra.telemetry.opening import Telemetry
from tests.support.otlp_receiver import OtlpReceiver


def set_otel(monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver | None, **variables: str) -> None:
    """Set these OTEL_* variables and no others; `receiver` is the endpoint."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    if receiver is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def span(telemetry: Telemetry, name: str) -> None:
    """Make a span and end it."""
    telemetry.tracer_provider.get_tracer("tests").start_span(name).end()
