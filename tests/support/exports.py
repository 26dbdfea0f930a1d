"""Exports of spans in a test, and what the process' log says of them."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from agentstream.infra.logs import configure_logs
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import Telemetry, open_telemetry
from tests.support.otel import set_otel, span
from tests.support.otlp_receiver import OtlpReceiver

FOR_EVER = "3600"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The process' log, as a worker writes it."""
    root = logging.getLogger()
    handlers, level, stream = root.handlers[:], root.level, io.StringIO()
    configure_logs("info", log_format="json", stream=stream)
    yield stream
    configure_logs("info", stream=stream)  # whatever levels the test has set for single libraries
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def said(stream: io.StringIO) -> list[tuple[str, str]]:
    """The lines as level and text."""
    return [(line["level"], line["event"]) for line in map(json.loads, stream.getvalue().splitlines())]


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver, **variables: str) -> AsyncIterator[Telemetry]:
    """Spans only; no patience between a loss and the news that all is well."""
    set_otel(
        monkeypatch, receiver, **{"OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_SCHEDULE_DELAY": "3600000", **variables}
    )
    async with open_telemetry(telemetry_settings(), calm_s=0.0) as telemetry:
        yield telemetry


async def sent(telemetry: Telemetry, receiver: OtlpReceiver, name: str) -> None:
    """Send a span and wait until it is known what became of it."""
    before = telemetry.losses["default"]
    span(telemetry, name)
    telemetry.flush()
    await receiver.until(lambda: telemetry.losses["default"] != before, f"{name} is counted")


def last_line(where: object, failed: int, dropped: int, unsent: int, *, of: int) -> str:
    """What the log says at the end of a process that lost so many."""
    return (
        f"spans are lost on the way to {where}: {failed + dropped + unsent} of {of} since the start "
        f"(refused or not answered: {failed}, no room to wait: {dropped}, not sent before the end: {unsent})"
    )
