"""Making a comparison: each case of both sides past every evaluator, into the evidence; and what evidence holds.

evidence = await compare(cases, baseline, candidate, evaluators, into=path)
comparison = read_comparison(path)         what summaries and verdicts are made of: no texts, 600 bytes an outcome
"""

import asyncio
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Final

from uuid_utils.compat import uuid7

from agentstream.consumers.replay.comparing.answers import NamedEvaluator, Side, as_score
from agentstream.consumers.replay.comparing.evaluators import canonical
from agentstream.consumers.replay.comparing.evidence import (
    AnswerLine,
    ComparisonLine,
    EndLine,
    EvaluatorLine,
    Line,
    MissingLine,
    OfRun,
    OutcomeLine,
    read_lines,
)
from agentstream.consumers.replay.comparing.sides import Answers, Run
from agentstream.consumers.tracing.ids import span_id_of
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.results import InvokeResult

SEED: Final = 20_260_101
_AT_ONCE: Final = 16
"""Cases that are evaluated at the same time: what a judging model is asked at once."""
_LONGEST: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one evaluator said of one run, as summaries need it."""

    passed: bool | None = None
    """Whether it passes."""
    value: float | None = None
    """The number."""
    error: str | None = None
    """What the evaluator raised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One case past one evaluator: its outcomes on both sides, one for each repeat."""

    run_id: str
    """The case."""
    session_id: str
    """Its session."""
    baseline: tuple[Outcome, ...] = ()
    """Empty: no answer on that side."""
    candidate: tuple[Outcome, ...] = ()
    """Empty: no answer on that side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the evidence holds."""

    about: ComparisonLine
    """What was compared with what."""
    columns: dict[str, tuple[Pair, ...]]
    """By evaluator: a pair for every case, in the order of the recording."""
    missing: tuple[MissingLine, ...] = ()
    """Cases without an answer on one side."""
    diverged: tuple[str, ...] = ()
    """Cases whose replay left the recording."""

    @property
    def evaluators(self) -> dict[str, EvaluatorLine]:
        """The evaluators by name."""
        return {one.name: one for one in self.about.evaluators}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is compared."""

    recording: str
    """The recording's name."""
    baseline: Answers
    """What it was before."""
    candidate: Answers
    """What is judged."""
    seed: int = SEED
    """Seed of every resampling."""
    baseline_repeats: int | None = None
    """How often the baseline was played to learn its noise."""


async def compare(
    cases: Iterable[RecordedRun], sources: Sources, evaluators: Sequence[NamedEvaluator], *, into: Path
) -> Path:
    """Evaluate everything and write the evidence, in the order of the cases; memory is that of 16 cases.

    What stood at `into` stays until all of it is there. An evaluator that raises is an error of that run and evaluator.
    Raises ComparisonError for a damaged source.
    """
    about = ComparisonLine(
        comparison_id=str(uuid7()),
        recording=sources.recording,
        baseline=sources.baseline.name,
        candidate=sources.candidate.name,
        baseline_repeats=sources.baseline_repeats,
        seed=sources.seed,
        evaluators=tuple(
            EvaluatorLine(name=one.name, spec=one.spec, better=one.better, unit=one.unit) for one in evaluators
        ),
        made_at=datetime.now(UTC),
        notes=(*sources.baseline.notes, *sources.candidate.notes),
    )
    into.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with _in_place_of(into) as file:
        file.write(about.to_bytes() + b"\n")
        remaining = iter(cases)
        while batch := list(islice(remaining, _AT_ONCE)):
            for lines in await asyncio.gather(*(_case(case, sources, evaluators) for case in batch)):
                file.writelines(line.to_bytes() + b"\n" for line in lines)
            count += len(batch)
        file.write(EndLine(cases=count).to_bytes() + b"\n")
    return into


@contextmanager
def _in_place_of(path: Path) -> Iterator[BinaryIO]:
    """A file that takes this place once it is whole: a Ctrl-C emptied the evidence of the comparison before."""
    fresh = path.with_name(f"{path.name}.{token_hex(4)}.part")
    try:
        with fresh.open("xb") as file:
            yield file
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def read_comparison(path: Path) -> Comparison:
    """What the evidence holds. Raises ComparisonError where it is torn."""
    reading = _Reading()
    for line in read_lines(path):
        reading.take(line)
    return reading.comparison()


async def _case(case: RecordedRun, sources: Sources, evaluators: Sequence[NamedEvaluator]) -> list[Line]:
    bare = case.model_copy(update={"events": ()})
    lines: list[Line] = []
    sides: tuple[tuple[Side, Answers], ...] = (("baseline", sources.baseline), ("candidate", sources.candidate))
    for side, answers in sides:
        runs = answers.runs_of(bare)
        if isinstance(runs, str):
            lines.append(MissingLine(run_id=case.run_id, session_id=case.session_id, side=side, why=runs))
            continue
        for run in runs:
            lines.append(_answer_line(run, side))
            lines += await asyncio.gather(*(_outcome(run, side, one) for one in evaluators))
    return lines


def _answer_line(run: Run, side: Side) -> AnswerLine:
    answer, case = run.answer, run.answer.case
    return AnswerLine(
        run_id=case.run_id,
        session_id=case.session_id,
        side=side,
        repeat=answer.repeat,
        status=answer.result.status,
        question=answer.question,
        text=answer.text,
        reference=answer.reference,
        reference_from=answer.reference_from,
        tool_calls=tuple(f"{call.name}({canonical(call.arguments)})" for call in answer.tool_calls),
        replay_run_id=answer.result.run_id if answer.result.run_id != case.run_id else None,
        trace_id=answer.result.trace_id,
        span_id=_span_id(answer.result),
        recorded_trace_id=case.result.trace_id if case.result is not None else None,
        recorded_span_id=_span_id(case.result),
        partition=case.source.partition if case.source is not None else None,
        divergence=run.divergence.what if run.divergence is not None else None,
    )


def _span_id(result: InvokeResult | None) -> str | None:
    """The span of the attempt that the result is of: its id follows from the attempt's."""
    if result is None or result.trace_id is None or result.attempt_id is None:
        return None
    return span_id_of(result.attempt_id, "agent", 0)


async def _outcome(run: Run, side: Side, one: NamedEvaluator) -> OutcomeLine:
    case = run.answer.case
    outcome = OutcomeLine(
        run_id=case.run_id,
        session_id=case.session_id,
        side=side,
        repeat=run.answer.repeat,
        evaluator=one.name,
    )
    try:
        scored = one.evaluator(run.answer)
        score = as_score(await scored if inspect.isawaitable(scored) else scored)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # somebody else's code: its failure is this outcome, and stands in it
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return outcome.model_copy(update={"error": said[:_LONGEST]})
    if score is None:
        return outcome
    return outcome.model_copy(update={"passed": score.passed, "value": score.value, "explanation": score.explanation})


@dataclass(kw_only=True, slots=True)
class _Reading:
    """Gathers lines to pairs."""

    about: ComparisonLine | None = None
    sessions: dict[str, str] = field(default_factory=dict)
    outcomes: dict[tuple[str, str, Side], list[Outcome]] = field(default_factory=dict)
    missing: list[MissingLine] = field(default_factory=list)
    diverged: dict[str, None] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        if isinstance(line, ComparisonLine):
            self.about = line
        if isinstance(line, OfRun):
            self.sessions[line.run_id] = line.session_id
        match line:
            case OutcomeLine():
                outcome = Outcome(passed=line.passed, value=line.value, error=line.error)
                self.outcomes.setdefault((line.evaluator, line.run_id, line.side), []).append(outcome)
            case MissingLine():
                self.missing.append(line)
            case AnswerLine() if line.divergence is not None:
                self.diverged[line.run_id] = None
            case _:
                return

    def comparison(self) -> Comparison:
        assert self.about is not None, "read_lines refuses evidence without it"
        return Comparison(
            about=self.about,
            columns={one.name: tuple(self._pairs(one.name)) for one in self.about.evaluators},
            missing=tuple(self.missing),
            diverged=tuple(self.diverged),
        )

    def _pairs(self, evaluator: str) -> Iterator[Pair]:
        for run_id, session_id in self.sessions.items():
            yield Pair(
                run_id=run_id,
                session_id=session_id,
                baseline=tuple(self.outcomes.get((evaluator, run_id, "baseline"), ())),
                candidate=tuple(self.outcomes.get((evaluator, run_id, "candidate"), ())),
            )
