"""The official OTLP/HTTP exporters, with what became of each export entered in the books.

Everything that OTEL_EXPORTER_OTLP_* says is left to them: headers, time-out, compression, certificates.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agentstream.infra.telemetry.delivery import Delivery
from agentstream.infra.telemetry.encoding import OtlpSpanExporter, SpanWriter, WrittenSpan
from agentstream.infra.telemetry.environment import Signal
from agentstream.infra.telemetry.recorded import RecordedSpan
from agentstream.infra.telemetry.session import WatchedSession
from agentstream.infra.telemetry.sizes import MAX_EXPORT_BYTES

_NO_REASON = "the exporter does not say why"


Waiting = RecordedSpan | WrittenSpan
"""What waits for an export; both know their size."""


class CountingSpanExporter:
    """Hands spans to another exporter and enters what became of them."""

    def __init__(self, inner: SpanExporter, delivery: Delivery, session: WatchedSession | None = None) -> None:
        """`session` of the inner exporter, where it has one of ours."""
        self._inner = inner
        self._otlp = inner if isinstance(inner, OtlpSpanExporter) and inner.takes_bytes else None
        self._writer = SpanWriter()
        self._delivery = delivery
        self._session = session
        self._closed = threading.Event()

    def waiting(self, span: RecordedSpan) -> Waiting | None:
        """What is to wait of a span that has ended: the bytes where they are sent. None: it cannot be written, and is
        lost."""
        if self._otlp is None:
            return span
        if span.written is None:
            try:
                span.written = self._writer.write(span)
            except Exception as error:  # noqa: BLE001  # whatever an encoder raises must not end a run
                if self._delivery.admit(0):
                    self._delivery.failed(1, type(error).__name__)
        return span.written

    def export(self, spans: Sequence[Waiting]) -> None:
        """Export them; never raises."""
        for piece, size in _pieces(spans):
            self._export(piece, size)

    def _export(self, spans: Sequence[Waiting], size: int) -> None:
        if self._closed.is_set():
            return  # already counted as dropped
        try:
            reason = None if self._handed_over(spans) is SpanExportResult.SUCCESS else _NO_REASON
        except Exception as error:  # noqa: BLE001  # whatever the network raised, the spans are lost
            reason = type(error).__name__
        if not self._closed.is_set():
            _enter(self._delivery, (len(spans), size), reason, self._session)

    def _handed_over(self, spans: Sequence[Waiting]) -> SpanExportResult:
        if self._otlp is not None:
            return self._otlp.send([span for span in spans if isinstance(span, WrittenSpan)])
        return self._inner.export([span for span in spans if isinstance(span, RecordedSpan)])

    def abandon(self) -> None:
        """Wait for nothing more: a retry that sleeps is woken, what has not arrived is entered as dropped."""
        if not self._closed.is_set():
            self._closed.set()
            self._delivery.abandon()
            self._inner.shutdown()

    def shutdown(self) -> None:
        """Called by the processor once its queue is empty."""
        self.abandon()


class CountingMetricExporter(MetricExporter):
    """Hands measurements to the official exporter and enters what became of them."""

    def __init__(self, inner: OTLPMetricExporter, delivery: Delivery, session: WatchedSession | None) -> None:
        # The reader asks its exporter how to aggregate, under these names; OTEL_EXPORTER_OTLP_METRICS_* decide.
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)
        self._inner = inner
        self._delivery = delivery
        self._session = session
        self._closed = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> MetricExportResult:
        """Export them; never raises."""
        if self._closed:
            return MetricExportResult.FAILURE
        try:
            succeeded = self._inner.export(metrics_data, timeout_millis) is MetricExportResult.SUCCESS
            reason = None if succeeded else _NO_REASON
        except Exception as error:  # noqa: BLE001  # as above
            reason = type(error).__name__
        arrived = _enter(self._delivery, (_points(metrics_data), 0), reason, self._session)
        return MetricExportResult.SUCCESS if arrived else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        """Send no more; a retry that sleeps is woken."""
        if not self._closed:
            self._closed = True
            self._inner.shutdown()


def otlp_span_exporter(
    endpoint: str, delivery: Delivery, *, only_headers: Mapping[str, str] | None = None
) -> CountingSpanExporter:
    """Build one; `only_headers`: those of a named target, which gets no others.

    Raises ValueError, OSError, RuntimeError or ImportError for variables that cannot be used.
    """
    session = watched_session("traces") if only_headers is None else WatchedSession("traces", only=only_headers)
    return CountingSpanExporter(OtlpSpanExporter(endpoint=endpoint, session=session), delivery, session)


def otlp_metric_exporter(endpoint: str, delivery: Delivery) -> CountingMetricExporter:
    """Build one. Raises as `otlp_span_exporter`."""
    session = watched_session("metrics")
    return CountingMetricExporter(OTLPMetricExporter(endpoint=endpoint, session=session), delivery, session)


def watched_session(signal: Signal) -> WatchedSession | None:
    """None where a variable asks for somebody else's session, which knows how to log in: then reasons are not known."""
    named = (f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{each}CREDENTIAL_PROVIDER" for each in ("", f"{signal.upper()}_"))
    return None if any(os.environ.get(name) for name in named) else WatchedSession(signal)


def _pieces(spans: Sequence[Waiting]) -> Iterator[tuple[Sequence[Waiting], int]]:
    """Yield the spans in order, as many at once as fit into one request, with their size. One alone may be larger."""
    piece: list[Waiting] = []
    size = 0
    for span in spans:
        if piece and size + span.size > MAX_EXPORT_BYTES:
            yield piece, size
            piece, size = [], 0
        piece.append(span)
        size += span.size
    if piece:
        yield piece, size


def _enter(delivery: Delivery, amount: tuple[int, int], reason: str | None, session: WatchedSession | None) -> bool:
    """Enter the end of an export of so many and so many bytes. Returns whether it arrived.

    `reason`: why it failed, as far as the exporter told.
    """
    count, size = amount
    answer = None if session is None else session.answer
    if answer is not None and (reason is not None or answer.status is not None):
        reason = answer.refusal or reason
    if reason is None:
        delivery.arrived(count, size, rejected=0 if answer is None else min(count, answer.rejected))
    else:
        delivery.failed(count, reason, size)
    return reason is None


def _points(data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
