"""Opens what the settings ask for, and closes it again within a bound.

async with open_telemetry(telemetry_settings()) as telemetry:
    tracer = telemetry.tracer_provider.get_tracer("agentstream")
"""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import JsonValue

from agentstream.infra.telemetry.delivery import CALM_SECONDS, Delivery, Losses, Room
from agentstream.infra.telemetry.environment import TelemetrySettings, TraceTarget, shown
from agentstream.infra.telemetry.exporters import CountingSpanExporter, otlp_metric_exporter, otlp_span_exporter
from agentstream.infra.telemetry.ids import WantedIds
from agentstream.infra.telemetry.loss_metrics import observe_losses
from agentstream.infra.telemetry.processors import BoundedProcessor, RoutedProcessor
from agentstream.infra.telemetry.recording import RecordingProvider
from agentstream.infra.telemetry.sizes import MAX_HELD_BYTES
from agentstream.infra.telemetry.span_file import FileSpanExporter

log = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
"""A collector that hangs delays the end of the process by this at most."""
SWITCH_SECONDS = 0.0005
"""How long the event loop waits for its turn while a batch is sent. It gives it away with each look at the sockets:
with Python's 5 ms, when batches were encoded meanwhile, 215 of 454 runs a second were left, with this 332 of 491."""
LOSING_SECONDS = 1.0
"""And one that takes nothing already, by this."""
_UNUSABLE = (ValueError, OSError, RuntimeError, ImportError)
DEFAULT, LOCAL, METRICS = "default", "file", "metrics"


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What is open."""

    tracer_provider: trace.TracerProvider
    """Where spans go; a no-op one if they go nowhere."""
    meter_provider: metrics.MeterProvider
    """Where measurements go; a no-op one if they go nowhere."""
    metrics_text: Callable[[], bytes] | None
    """The measurements in Prometheus' text format, from any thread; None if that is not wanted."""
    processors: tuple[BoundedProcessor, ...]
    """One for each place that spans go to."""
    deliveries: tuple[Delivery, ...]
    """The books: of each of these, and of the measurements."""

    def flush(self) -> None:
        """Ask that ended spans be exported within 0.2 s, as far as the other side takes them. Never waits or raises."""
        for processor in self.processors:
            processor.ask_to_flush()

    @property
    def losses(self) -> dict[str, Losses]:
        """Counts by the exporter's name: `default`, `file`, `metrics`, or the name of a target."""
        return {delivery.name: delivery.losses for delivery in self.deliveries}

    def state(self) -> dict[str, JsonValue]:
        """For /status, by the exporter's name."""
        return {delivery.name: delivery.state() for delivery in self.deliveries}


@asynccontextmanager
async def open_telemetry(
    settings: TelemetrySettings,
    *,
    targets: Mapping[str, TraceTarget] | None = None,
    trace_dir: Path | None = None,
    metrics_page: bool = False,
    calm_s: float = CALM_SECONDS,
    close_s: float | None = None,
) -> AsyncIterator[Telemetry]:
    """Open the exporters; at the end what is queued is exported, for `close_s` (absent: 5 s) at most.

    Never raises for what is configured wrongly, nor for a collector: telemetry is no reason not to work. A line tells.
    `metrics_page`: whether somebody shows `metrics_text`. `calm_s`: see `Delivery`.
    """
    for problem in settings.problems:
        log.warning(problem)
    opening = _Opening(settings, calm_s)
    if not settings.disabled:
        opening.spans(targets or {}, trace_dir)
        opening.metrics(page=metrics_page)
    telemetry = opening.telemetry()
    usual = sys.getswitchinterval()
    if telemetry.processors:
        sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield telemetry
    finally:
        sys.setswitchinterval(usual)
        await _close(telemetry, CLOSE_SECONDS if close_s is None else close_s)


class _Opening:
    """Gathers what is opened."""

    def __init__(self, settings: TelemetrySettings, calm_s: float) -> None:
        self._settings = settings
        self._calm_s = calm_s
        self._deliveries: list[Delivery] = []
        self._processors: dict[str, BoundedProcessor] = {}
        self._tracer_provider: trace.TracerProvider = trace.NoOpTracerProvider()
        self._meter_provider: metrics.MeterProvider = metrics.NoOpMeterProvider()
        self._metrics_text: Callable[[], bytes] | None = None

    def spans(self, targets: Mapping[str, TraceTarget], trace_dir: Path | None) -> None:
        if (endpoint := self._settings.traces.endpoint) is not None:
            self._processor(DEFAULT, shown(endpoint), lambda delivery: otlp_span_exporter(endpoint, delivery))
        for name, target in targets.items():
            self._target(name, target)
        if trace_dir is not None:
            self._processor(
                LOCAL, str(trace_dir), lambda delivery: CountingSpanExporter(FileSpanExporter(trace_dir), delivery)
            )
        if not self._processors:
            return
        routed = RoutedProcessor(
            default=[self._processors[DEFAULT]] if DEFAULT in self._processors else [],
            local=[self._processors[LOCAL]] if LOCAL in self._processors else [],
            targets={name: self._processors[name] for name in targets if name in self._processors},
            exclusive=frozenset(name for name, target in targets.items() if target.exclusive),
        )
        with _one_line("spans are not exported"):
            provider = TracerProvider(resource=self._resource(), id_generator=WantedIds(), shutdown_on_exit=False)
            self._tracer_provider = RecordingProvider(provider, routed)

    def _target(self, name: str, target: TraceTarget) -> None:
        self._processor(
            name,
            shown(target.endpoint),
            lambda delivery: otlp_span_exporter(target.endpoint, delivery, only_headers=target.headers),
        )

    def _processor(self, name: str, where: str, exporter: Callable[[Delivery], CountingSpanExporter]) -> None:
        delivery = Delivery(
            name,
            "spans",
            where,
            room=Room(count=self._settings.batching.queue, size=MAX_HELD_BYTES),
            calm_s=self._calm_s,
        )
        with _one_line(f"spans are not exported to {where}"):
            self._processors[name] = BoundedProcessor(exporter(delivery), delivery, self._settings.batching)
            self._deliveries.append(delivery)

    def metrics(self, *, page: bool) -> None:
        if self._settings.metrics.endpoint is None and not (page and self._settings.prometheus):
            return
        with _one_line("measurements are not kept"):
            resource = self._resource()
            # Tried without readers: one that fails would leave their threads behind.
            MeterProvider(resource=resource, shutdown_on_exit=False)
            if readers := self._readers(page=page):
                provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
                observe_losses(provider, self._deliveries)
                self._meter_provider = provider

    def _readers(self, *, page: bool) -> list[MetricReader]:
        readers: list[MetricReader] = []
        if (endpoint := self._settings.metrics.endpoint) is not None:
            delivery = Delivery(METRICS, "measurements", shown(endpoint), calm_s=self._calm_s)
            with _one_line("measurements are not exported"):
                readers.append(PeriodicExportingMetricReader(otlp_metric_exporter(endpoint, delivery)))
                self._deliveries.append(delivery)
        if page and self._settings.prometheus:
            registry = CollectorRegistry()
            readers.append(PrometheusMetricReader(registry=registry, scope_info_enabled=False))
            self._metrics_text = _page(registry)
        return readers

    def telemetry(self) -> Telemetry:
        return Telemetry(
            tracer_provider=self._tracer_provider,
            meter_provider=self._meter_provider,
            metrics_text=self._metrics_text,
            processors=tuple(self._processors.values()),
            deliveries=tuple(self._deliveries),
        )

    def _resource(self) -> Resource:
        named = self._settings.service_name
        ours = {"service.version": version("agentstream-kafka")}
        return Resource.create({**ours, **({"service.name": named} if named is not None else {})})


class _one_line(suppress):  # noqa: N801  # a context manager
    """Turns what a variable that cannot be used raises into one line of the log."""

    def __init__(self, consequence: str) -> None:
        super().__init__(*_UNUSABLE)
        self._consequence = consequence

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        handled = super().__exit__(kind, error, traceback)  # type: ignore[arg-type]
        if handled:
            log.warning("%s: %s", self._consequence, " ".join(str(error).split()))
        return bool(handled)


def _page(registry: CollectorRegistry) -> Callable[[], bytes]:
    lock = threading.Lock()

    def text() -> bytes:
        with lock:  # of two pages collected at once one would hold everything twice, the other nothing
            return generate_latest(registry)

    return text


async def _close(telemetry: Telemetry, patience_s: float) -> None:
    """Export what is queued. All places at once, so that one that hangs costs the others nothing."""
    ends = {_in_thread(place.shutdown): place.delivery.losing for place in telemetry.processors}
    if isinstance(telemetry.meter_provider, MeterProvider):
        losing = any(delivery.losing for delivery in telemetry.deliveries if delivery.name == METRICS)
        ends[_in_thread(telemetry.meter_provider.shutdown)] = losing
    if ends:
        # A place that takes nothing as it is has one more chance, and does not cost each Ctrl-C five seconds.
        await asyncio.wait(ends, timeout=min(patience_s, LOSING_SECONDS))
        if hopeful := [end for end, losing in ends.items() if not (losing or end.done())]:
            await asyncio.wait(hopeful, timeout=max(0.0, patience_s - LOSING_SECONDS))
    for place in telemetry.processors:
        place.abandon()
        if (line := place.delivery.last_line()) is not None:
            log.warning(line)


def _in_thread(work: Callable[[], object]) -> asyncio.Future[None]:
    """Run it in a thread that does not keep the process: the loop's own pool is waited for at the end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not ended.done():
            ended.set_result(None)

    def run() -> None:
        try:
            work()
        except Exception:
            log.warning("telemetry could not be closed", exc_info=True)
        finally:
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, name="close telemetry", daemon=True).start()
    return ended
