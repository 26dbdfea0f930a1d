"""Evaluators of pydantic-evals, the model that judges among them. Needs the extra `evals`.

Nothing of it is imported before it is asked for.
"""

import inspect
from collections.abc import Awaitable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Protocol, runtime_checkable

from agentstream.consumers.replay.comparing.answers import Answer, ComparisonError, Evaluator, Score, Scored, as_score
from agentstream.consumers.replay.comparing.evaluators import errors


@runtime_checkable
class PydanticEvaluator(Protocol):
    """What pydantic-evals calls an Evaluator: it is given an EvaluatorContext."""

    def evaluate(self, ctx: object, /) -> object:
        """Judge; the value or an awaitable of it."""


def judge(rubric: str, *, model: str | None = None) -> Evaluator:
    """A model says whether the answer fulfils the rubric; it sees the question, and the reference where there is one.
    It is not asked about a run that was not completed, which does not pass.

    `model` as pydantic-ai names it, such as `openai:gpt-5-mini`; it takes its key from the environment. Raises
    ComparisonError without a rubric, a model or the extra.
    """
    if not rubric.strip():
        raise ComparisonError("judge: needs what to judge: judge:Is the answer polite?")
    if model is None:
        raise ComparisonError("judge: needs a model: --judge-model openai:gpt-5-mini")
    kind = getattr(_evaluators(), "LLMJudge")  # noqa: B009  # the extra may not be there when types are checked
    judges = {
        known: adapted(kind(rubric=rubric, model=model, include_input=True, include_expected_output=known))
        for known in (False, True)
    }

    def evaluate(answer: Answer) -> Scored | Awaitable[Scored]:
        if answer.result.status != "completed":
            # Nobody could find fault with the empty answer of a run that failed: "no insults" would pass.
            return Score(passed=False, explanation=errors(answer).explanation)
        return judges[answer.reference is not None](answer)

    return evaluate


def adapted(evaluator: PydanticEvaluator) -> Evaluator:
    """An evaluator of pydantic-evals as one of ours.

    It gets the question as `inputs`, the answer's text as `output`, the reference as `expected_output`, the request's
    metadata, and the seconds the run took as `duration`; there is no span tree, and asking for it raises. Of several
    results the assertions must all hold, and the first number is the value; labels stand in the explanation.
    """
    _evaluators()

    async def evaluate(answer: Answer) -> Scored:
        said = evaluator.evaluate(_context(answer))
        return _score(await said if inspect.isawaitable(said) else said)

    return evaluate


def _evaluators() -> ModuleType:
    try:
        return import_module("pydantic_evals.evaluators")
    except ImportError as error:
        raise ComparisonError(f"{error}: pip install 'agentstream-kafka[evals]' brings it") from None


def _context(answer: Answer) -> object:
    no_spans = import_module("pydantic_evals.otel._errors").SpanTreeRecordingError
    return _evaluators().EvaluatorContext(
        name=answer.case.run_id,
        inputs=answer.question,
        metadata=dict(answer.case.request.metadata),
        expected_output=answer.reference,
        output=answer.text,
        duration=answer.seconds or 0.0,
        _span_tree=no_spans("the run is over: only its result is known"),
        attributes={},
        metrics={},
    )


def _score(said: object) -> Score | None:
    if not isinstance(said, Mapping):
        return _one(None, said)
    scores = [score for name, value in said.items() if (score := _one(str(name), value)) is not None]
    if not scores:
        return None
    passes = [score.passed for score in scores if score.passed is not None]
    return Score(
        passed=all(passes) if passes else None,
        value=next((score.value for score in scores if score.value is not None), None),
        explanation="; ".join(score.explanation for score in scores if score.explanation) or None,
    )


def _one(name: str | None, said: object) -> Score | None:
    """A bare value or an EvaluationReason. A label is neither right nor wrong."""
    value, reason = getattr(said, "value", said), getattr(said, "reason", None)
    words = [word for word in (value if isinstance(value, str) else None, reason) if word]
    explanation = ": ".join([name, *words] if name and words else words) or None
    if isinstance(value, str):
        return Score(explanation=explanation)
    score = as_score(value)
    return None if score is None else Score(passed=score.passed, value=score.value, explanation=explanation)
