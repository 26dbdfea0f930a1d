"""What evaluators see and say: an `Answer` in, a `Score` out."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import JsonValue

from agentstream.schemas.messages import ToolCallPart
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.results import InvokeResult

Side = Literal["baseline", "candidate"]
ReferenceFrom = Literal["expected", "recorded"]
Better = Literal["higher", "lower"]


class ComparisonError(Exception):
    """A comparison cannot be made as it was asked for. Its text is one line with what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One run of one case, on one side."""

    case: RecordedRun
    """What was asked and, on the recording's side, what came of it; without its events."""
    result: InvokeResult
    """What came of it on this side."""
    repeat: int = 0
    """Which repetition on this side, from 0."""

    @property
    def text(self) -> str:
        """The text of the last assistant message, or an empty string."""
        return self.result.text

    @property
    def question(self) -> str:
        """The text of the last message that was sent."""
        return self.case.request.messages[-1].text

    @property
    def reference_from(self) -> ReferenceFrom | None:
        """Where the reference comes from; None where there is none."""
        if self.case.expected is not None:
            return "expected"
        return "recorded" if self.case.result is not None and self.case.result.status == "completed" else None

    @property
    def reference(self) -> JsonValue:
        """The right answer where the data set gives one, else the recorded one; None where there is neither."""
        if self.case.expected is not None:
            return self.case.expected
        return self.case.result.text if self.case.result is not None and self.reference_from is not None else None

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls in order."""
        return tool_calls(self.result)

    @property
    def seconds(self) -> float | None:
        """From the attempt's beginning to the run's end; None if none began. The same clock on both sides."""
        started = self.result.started_at
        return None if started is None else max(0.0, (self.result.ended_at - started).total_seconds())


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What an evaluator says of an answer: that it passes or not, or a number, or both."""

    passed: bool | None = None
    """Whether it passes; None: it is a number that matters."""
    value: float | None = None
    """The number."""
    explanation: str | None = None
    """Why, in one line."""


Scored = Score | bool | float | int | None
"""None: the evaluator has nothing to say of this answer, such as a cost that is unknown."""


class Evaluator(Protocol):
    """Judges one answer at a time. May raise: that is an error of this answer, and the rest goes on."""

    def __call__(self, answer: Answer, /) -> Scored | Awaitable[Scored]:
        """Judge it; for concurrent use if it awaits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedEvaluator:
    """An evaluator with the name that rules and reports call it by."""

    name: str
    """The name: letters, digits, `_` and `-`."""
    spec: str
    """How it was asked for, such as `contains:hello`."""
    evaluator: Evaluator
    """The evaluator."""
    better: Better | None = "higher"
    """Which way is an improvement; None: neither."""
    unit: str = ""
    """Unit of its numbers: s, tokens, USD."""


def tool_calls(result: InvokeResult) -> tuple[ToolCallPart, ...]:
    """The tool calls of a result, in order."""
    return tuple(part for message in result.messages for part in message.parts if isinstance(part, ToolCallPart))


def as_score(scored: object) -> Score | None:
    """What an evaluator returned, as a score. Raises TypeError for what is none, ValueError for NaN and infinity."""
    match scored:
        case None | Score():
            score = scored
        case bool():
            score = Score(passed=scored)
        case int() | float():
            score = Score(value=float(scored))
        case _:
            raise TypeError(f"an evaluator returns True, False, a number, a Score or None, not {type(scored).__name__}")
    if score is not None and score.value is not None and not abs(score.value) < float("inf"):
        raise ValueError(f"an evaluator returned {score.value}, which no mean survives")
    return score
