"""Outcomes as what goes onto the topic of evaluations."""

from collections.abc import Iterator
from pathlib import Path

from agentstream.consumers.replay.comparing.evidence import AnswerLine, ComparisonLine, OutcomeLine, read_lines
from agentstream.schemas.evaluations import EvaluationLabel, EvaluationResult


def evaluation_results(evidence: Path) -> Iterator[EvaluationResult]:
    """Every outcome that says something, in the order of the evidence. Raises ComparisonError where it is torn."""
    about: ComparisonLine | None = None
    answer: AnswerLine | None = None
    for line in read_lines(evidence):
        match line:
            case ComparisonLine():
                about = line
            case AnswerLine():
                answer = line
            case OutcomeLine() if about is not None and answer is not None:
                if line.passed is not None or line.value is not None or line.error is not None:
                    yield _result(line, answer, about)
            case _:
                continue


def _result(line: OutcomeLine, answer: AnswerLine, about: ComparisonLine) -> EvaluationResult:
    label: EvaluationLabel | None = None
    if line.error is not None:
        label = "error"
    elif line.passed is not None:
        label = "pass" if line.passed else "fail"
    return EvaluationResult(
        run_id=line.run_id,
        session_id=line.session_id,
        comparison_id=about.comparison_id,
        side=line.side,
        repeat=line.repeat,
        replay_run_id=answer.replay_run_id,
        name=line.evaluator,
        score_value=line.value if line.passed is None or line.value is not None else float(line.passed),
        score_label=label,
        explanation=line.error or line.explanation,
        trace_id=answer.trace_id,
        span_id=answer.span_id,
        recorded_trace_id=answer.recorded_trace_id,
        recorded_span_id=answer.recorded_span_id,
        evaluated_at=about.made_at,
    )
