"""Outcomes as OpenTelemetry spans, each linked to the trace of the run that was judged. Its API only."""

from collections.abc import Iterable

from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer

from agentstream.producers.spans import clean, span_context
from agentstream.schemas import span_names as names
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.trace import TraceContext

# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-events.md
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_SCORE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"


def trace_evaluations(tracer: Tracer, results: Iterable[EvaluationResult], *, recording: str) -> int:
    """A root span for the comparison, and below it one for each result; returns how many.

    A result's span links to the span of the attempt that was judged, and to that of the recorded one. A run without
    such a span, since it left no trace or none of its attempts began, has no link.
    """
    count = 0
    with tracer.start_as_current_span("evaluate", kind=SpanKind.INTERNAL) as root:
        root.set_attribute("agentstream.recording", clean(recording))
        for result in results:
            count += 1
            _span(tracer, result)
        root.set_attribute("agentstream.evaluations", count)
    return count


def _span(tracer: Tracer, result: EvaluationResult) -> None:
    span = tracer.start_span(f"evaluate {clean(result.name)}", links=_links(result))
    span.set_attributes(
        {
            names.RUN_ID: result.run_id,
            names.CONVERSATION_ID: clean(result.session_id),
            EVALUATION_NAME: clean(result.name),
            "agentstream.comparison.id": result.comparison_id,
            "agentstream.comparison.side": result.side,
        }
    )
    if result.score_value is not None:
        span.set_attribute(EVALUATION_SCORE, result.score_value)
    if result.score_label is not None:
        span.set_attribute(EVALUATION_LABEL, result.score_label)
    if result.explanation is not None:
        span.set_attribute(EVALUATION_EXPLANATION, clean(result.explanation))
    if result.score_label == "error":
        span.set_attribute(names.ERROR_TYPE, (result.explanation or "error").split(":")[0])
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _links(result: EvaluationResult) -> list[Link]:
    places = {
        (result.trace_id, result.span_id): "judged",
        (result.recorded_trace_id, result.recorded_span_id): "recorded",
    }
    return [
        Link(span_context(TraceContext(trace_id=trace_id, span_id=span_id)), {names.LINK: what})
        for (trace_id, span_id), what in places.items()
        if trace_id is not None and span_id is not None
    ]
