"""What the OTEL_* variables say, as far as it decides what is opened; the SDK reads the others itself.

They keep their names and meanings. Only what the SDK would take for granted differs: without an endpoint nothing is
exported (the SDK would try localhost), and a value that cannot be used is one line instead of a traceback.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from agentstream.infra.telemetry.misread import header_variables, misread

SERVICE_NAME = "agentstream-worker"
"""The service, where neither OTEL_SERVICE_NAME nor OTEL_RESOURCE_ATTRIBUTES names it."""
Signal = Literal["traces", "metrics"]
_PROTOCOL = "http/protobuf"
_SECRET_HEADER = re.compile(r"auth|key|token|secret|password|cookie|credential", re.IGNORECASE)
_LONG_AS_A_SECRET = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Whether and where one signal is exported by OTLP."""

    endpoint: str | None = None
    """The full URL, or None if it is not exported."""
    off_because: str = "OTEL_EXPORTER_OTLP_ENDPOINT is not set"
    """Why it is not, as a clause."""
    problem: bool = False
    """Whether it is not because a variable cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """OTEL_BSP_*: how spans wait for their export."""

    queue: int = 2_048
    """Spans that may wait or be under way; more are dropped, and counted."""
    batch: int = 512
    """Spans of one export at most."""
    delay_ms: float = 5_000
    """Longest wait of a span that nobody asked to flush, milliseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetrySettings:
    """What is to be opened."""

    disabled: bool = False
    """OTEL_SDK_DISABLED: nothing at all, not even a local file."""
    traces: Destination = Destination()
    """Where spans go."""
    metrics: Destination = Destination()
    """Where measurements go."""
    prometheus: bool = True
    """Whether measurements may be shown in Prometheus' format."""
    batching: Batching = Batching()
    """How spans wait."""
    service_name: str | None = SERVICE_NAME
    """The service's name; None: a variable names it."""
    problems: tuple[str, ...] = ()
    """What in the variables cannot be used, one line each, without values of headers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceTarget:
    """A place that requests may name for their spans."""

    endpoint: str
    """The full URL."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent there and nowhere else; secrets."""
    exclusive: bool = False
    """Whether the default endpoint does not get these spans."""


def telemetry_settings(
    environment: Mapping[str, str] | None = None, *, service: str = SERVICE_NAME
) -> TelemetrySettings:
    """Read what the OTEL_* variables say. Total: what cannot be used is in `problems`."""
    variables = os.environ if environment is None else environment
    reader = _Reader(variables)
    named = "OTEL_SERVICE_NAME" in variables or "service.name=" in variables.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return TelemetrySettings(
        disabled=reader.word("OTEL_SDK_DISABLED") == "true",
        traces=reader.destination("traces", frozenset({"otlp", "none"})),
        metrics=reader.destination("metrics", frozenset({"otlp", "prometheus", "none"})),
        prometheus=reader.wants_prometheus(),
        batching=reader.batching(),
        service_name=None if named else service,
        problems=(*reader.problems, *misread(variables)),
    )


def telemetry_secrets(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """What must never be shown: values of headers that look like secrets, also without `Bearer`; passwords in URLs."""
    variables = os.environ if environment is None else environment
    for name in ("", "TRACES_", "METRICS_"):
        with suppress(ValueError):
            password = urlsplit(variables.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT", "")).password
            yield from {password or "", unquote(password or "")}
    for _, text in header_variables(variables):
        for part in text.split(","):
            name, _, value = part.partition("=")
            secret = value.strip() or name.strip()
            if not value or _SECRET_HEADER.search(name) or len(secret) >= _LONG_AS_A_SECRET:
                yield from {secret, secret.rpartition(" ")[2], secret.rpartition("%20")[2]}


def shown(url: str) -> str:
    """A URL as it may stand in a log: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable URL"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


class _Reader:
    """Reads variables and gathers what is wrong with them."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.problems: list[str] = []

    def word(self, name: str) -> str:
        return self._variables.get(name, "").strip().lower()

    def destination(self, signal: Signal, known: frozenset[str]) -> Destination:
        exporters = self._exporters(signal, known)
        if exporters and "otlp" not in exporters:
            return Destination(off_because=f"OTEL_{signal.upper()}_EXPORTER={','.join(sorted(exporters))}")
        for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if protocol := self.word(name):
                if protocol != _PROTOCOL:
                    return self._unusable(f"{name}={protocol}: only {_PROTOCOL} is spoken here", signal)
                break
        return self._endpoint(signal)

    def _exporters(self, signal: Signal, known: frozenset[str]) -> frozenset[str]:
        """What OTEL_…_EXPORTER lists; empty: it says nothing."""
        name = f"OTEL_{signal.upper()}_EXPORTER"
        wanted = frozenset(each.strip() for each in self.word(name).split(",") if each.strip())
        for unknown in sorted(wanted - known):
            self.problems.append(f"{name}: there is no exporter `{unknown}`: use {', '.join(sorted(known))}")
        if wanted and not wanted & known:
            return frozenset({"none"})
        return wanted & known

    def _endpoint(self, signal: Signal) -> Destination:
        own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        # Chosen as the exporter does it: the signal's own URL as it stands, the general one with a path behind it.
        name = own if self._variables.get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT"
        given = self._variables.get(name)
        if not given:
            return Destination()
        endpoint = given if name == own else f"{given.removesuffix('/')}/v1/{signal}"
        try:
            parts = urlsplit(given)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            return self._unusable(f"{name}: must be a URL such as http://127.0.0.1:4318", signal)
        return Destination(endpoint=endpoint)

    def _unusable(self, problem: str, signal: Signal) -> Destination:
        self.problems.append(f"{problem}; {signal} are not exported")
        return Destination(off_because=problem, problem=True)

    def wants_prometheus(self) -> bool:
        exporters = frozenset(each.strip() for each in self.word("OTEL_METRICS_EXPORTER").split(",") if each.strip())
        return not exporters or "prometheus" in exporters

    def batching(self) -> Batching:
        usual = Batching()
        queue = self._positive("OTEL_BSP_MAX_QUEUE_SIZE", usual.queue)
        batch = self._positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(usual.batch, queue))
        if batch > queue:
            self.problems.append(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: is more than OTEL_BSP_MAX_QUEUE_SIZE, which takes effect"
            )
        delay = self._positive("OTEL_BSP_SCHEDULE_DELAY", int(usual.delay_ms))
        return Batching(queue=queue, batch=min(batch, queue), delay_ms=delay)

    def _positive(self, name: str, usual: int) -> int:
        text = self.word(name)
        if not text:
            return usual
        if text.isdecimal() and int(text) > 0:
            return int(text)
        self.problems.append(f"{name}: must be a whole number above 0; {usual:,} takes effect")
        return usual
