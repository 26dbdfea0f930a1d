"""The evidence of a comparison: JSON Lines, one for each case × evaluator × side × repeat. All else is made of it.

comparison    first: what was compared with what, by which evaluators
answer        one run of one case on one side, before its outcomes
outcome       what one evaluator said of it
missing       a case without an answer on one side
end           last: without it the file is torn, and refused
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from agentstream.consumers.replay.comparing.answers import Better, ComparisonError, ReferenceFrom, Side
from agentstream.schemas.base import Flag, Instant, Int, RunId, SessionId, WireModel

EVIDENCE_VERSION: Final = 1


class EvaluatorLine(WireModel):
    """An evaluator of the comparison."""

    name: str = Field(description="Its name in rules and reports.")
    spec: str = Field(description="How it was asked for.")
    better: Better | None = Field(default=None, description="Which way is an improvement.")
    unit: str = Field(default="", description="Unit of its numbers.")


class ComparisonLine(WireModel):
    """What was compared."""

    type: Literal["comparison"] = "comparison"
    version: Int = Field(default=EVIDENCE_VERSION, description="Version of this format.")
    comparison_id: str = Field(description="uuid7 of the comparison.")
    recording: str = Field(description="The recording.")
    baseline: str = Field(description="`recording`, or the replay that is the baseline.")
    candidate: str = Field(description="The replay that is judged.")
    baseline_repeats: Int | None = Field(
        default=None,
        ge=2,
        description="How often the baseline was played to learn its noise, where that was asked for.",
    )
    seed: Int = Field(description="Seed of every resampling.")
    evaluators: tuple[EvaluatorLine, ...] = Field(description="The evaluators, in order.")
    made_at: Instant = Field(description="When.")
    notes: tuple[str, ...] = Field(default=(), description="What a reader must know of the sources.")


class OfRun(WireModel):
    """Which run a line is about."""

    run_id: RunId = Field(description="The case.")
    session_id: SessionId = Field(description="Its session.")
    side: Side = Field(description="baseline or candidate.")
    repeat: Int = Field(default=0, ge=0, description="Which repetition.")


class AnswerLine(OfRun):
    """One run of one case."""

    type: Literal["answer"] = "answer"
    status: str = Field(description="How it ended.")
    question: str = Field(default="", description="The last text that was sent.")
    text: str = Field(description="What was answered.")
    reference: JsonValue = Field(default=None, description="What evaluators held it against.")
    reference_from: ReferenceFrom | None = Field(default=None, description="The data set's, or the recorded answer.")
    tool_calls: tuple[str, ...] = Field(default=(), description="Tool calls, as name(arguments).")
    replay_run_id: RunId | None = Field(default=None, description="The run's own id, where it was replayed.")
    trace_id: str | None = Field(default=None, description="The trace of this run.")
    span_id: str | None = Field(default=None, description="The span of its attempt in there.")
    recorded_trace_id: str | None = Field(default=None, description="The trace of the recorded run.")
    recorded_span_id: str | None = Field(default=None, description="The span of its attempt in there.")
    partition: Int | None = Field(default=None, ge=0, description="Partition of the recorded request, where known.")
    divergence: str | None = Field(default=None, description="Where a frozen or hybrid replay left the recording.")


class OutcomeLine(OfRun):
    """What one evaluator said of one run. Neither passed nor value nor error: it had nothing to say."""

    type: Literal["outcome"] = "outcome"
    evaluator: str = Field(description="The evaluator.")
    passed: Flag | None = Field(default=None, description="Whether it passes.")
    value: float | None = Field(default=None, description="The number.")
    explanation: str | None = Field(default=None, description="Why.")
    error: str | None = Field(default=None, description="What the evaluator raised.")


class MissingLine(OfRun):
    """A case that one side has no answer of."""

    type: Literal["missing"] = "missing"
    why: str = Field(description="Why, in one line.")


class EndLine(WireModel):
    """All was written."""

    type: Literal["end"] = "end"
    cases: Int = Field(ge=0, description="How many cases there are.")


Line = ComparisonLine | AnswerLine | OutcomeLine | MissingLine | EndLine
_LINE: Final[TypeAdapter[Line]] = TypeAdapter(Annotated[Line, Field(discriminator="type")])


def write_evidence(path: Path, lines: Iterable[Line]) -> None:
    """Write them all; for what is made already. A running comparison writes line by line."""
    with path.open("wb") as file:
        file.writelines(line.to_bytes() + b"\n" for line in lines)


def read_lines(path: Path) -> Iterator[Line]:
    """The lines in order. Raises ComparisonError for a file that is torn, newer than this, or no evidence at all."""
    ended = False
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = _LINE.validate_json(raw)
                if number == 1 and not isinstance(line, ComparisonLine):
                    raise ComparisonError(f"{path}: is no evidence of a comparison")
                if isinstance(line, ComparisonLine) and line.version > EVIDENCE_VERSION:
                    raise ComparisonError(f"{path}: version {line.version} is newer than {EVIDENCE_VERSION}: upgrade")
                ended = isinstance(line, EndLine)
                yield line
    except OSError as error:
        raise ComparisonError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise ComparisonError(f"{path}: a line is no evidence: {error.errors()[0]['msg']}") from None
    if not ended:
        raise ComparisonError(f"{path}: is torn: its last line is missing; compare again")
