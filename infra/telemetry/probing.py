"""Whether spans and measurements would arrive: an empty export by the same exporter, with the same headers."""

from dataclasses import dataclass
from http import HTTPStatus

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricsData

from agentstream.infra.telemetry.environment import Signal, TraceTarget, shown
from agentstream.infra.telemetry.exporters import watched_session
from agentstream.infra.telemetry.session import WatchedSession

PATIENCE_S = 5.0
_LOST = "runs are not affected, but what they report is lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What was found about one place."""

    found: str
    """What is there, without secrets."""
    advice: str = ""
    """What to do; empty: nothing, it is as it should be."""


def probe(signal: Signal, endpoint: str) -> Probe:
    """Ask the place that the OTEL_* variables name; takes 5 s at most. Never raises."""
    return _asked(signal, endpoint, watched_session(signal), "OTEL_EXPORTER_OTLP_")


def probe_target(target: TraceTarget) -> Probe:
    """Ask a named target, as `probe`."""
    return _asked("traces", target.endpoint, WatchedSession("traces", only=target.headers), "the target's ")


def _asked(signal: Signal, endpoint: str, session: WatchedSession | None, names: str) -> Probe:
    where = shown(endpoint)
    try:
        arrived = _export_nothing(signal, endpoint, session)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        return Probe(found=f"{where}: {error}", advice="Correct the OTEL_* variables.")
    refusal = ("no answer" if not arrived else None) if session is None else session.answer.refusal
    if refusal is None:
        return Probe(found=f"{where} takes them")
    status = None if session is None else session.answer.status
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Probe(found=f"{where} refuses ({refusal})", advice=f"Check {_said(names, 'headers')}: {_LOST}.")
    verb = "does not answer" if status is None else "does not take them"
    return Probe(found=f"{where} {verb} ({refusal})", advice=f"Check {_said(names, 'endpoint')}: {_LOST}.")


def _export_nothing(signal: Signal, endpoint: str, session: WatchedSession | None) -> bool:
    if signal == "traces":
        spans = OTLPSpanExporter(endpoint=endpoint, timeout=PATIENCE_S, session=session)
        try:
            return spans.export([]).name == "SUCCESS"
        finally:
            spans.shutdown()  # type: ignore[no-untyped-call]
    points = OTLPMetricExporter(endpoint=endpoint, timeout=PATIENCE_S, session=session)
    try:
        return points.export(MetricsData(resource_metrics=[])).name == "SUCCESS"
    finally:
        points.shutdown()


def _said(names: str, what: str) -> str:
    return f"{names}{what.upper() if names.endswith('_') else what}"
