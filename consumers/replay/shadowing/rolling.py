"""The comparison of the last so many pairs. Each is evaluated once; what stays of it are its outcomes, no texts."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agentstream.consumers.replay.comparing.answers import Answer, NamedEvaluator
from agentstream.consumers.replay.comparing.comparison import SEED, Comparison, Pair, Sources, compare, read_comparison
from agentstream.consumers.replay.comparing.evidence import MissingLine
from agentstream.consumers.replay.comparing.rules import Rule
from agentstream.consumers.replay.comparing.sides import Recorded, Run
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary, summarize
from agentstream.consumers.replay.comparing.verdict import Verdict, check_rules, judge_rules
from agentstream.consumers.replay.playing.directory import ReplayDirectory
from agentstream.schemas.recordings import RecordedRun

WINDOW: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How the candidate stands now."""

    comparison: Comparison
    """The last pairs."""
    summaries: tuple[EvaluatorSummary, ...]
    """What got better and worse in them."""
    verdict: Verdict
    """What the rules say of them."""


@dataclass(frozen=True, slots=True)
class _Shadowed:
    """The candidate's answers, from the replay that grows."""

    directory: ReplayDirectory
    name: str = "candidate"
    notes: tuple[str, ...] = ()

    def runs_of(self, case: RecordedRun) -> tuple[Run, ...] | str:
        """Its answer to the case."""
        if (case.run_id, 0) not in self.directory:
            return "it was not played"
        run = self.directory.read(case.run_id, 0)
        return (Run(answer=Answer(case=case, result=run.result), divergence=run.divergence),)


class RollingComparison:
    """Judges the last `window` pairs. Memory: 600 bytes for each of them and each evaluator."""

    def __init__(
        self,
        replay: ReplayDirectory,
        evaluators: Sequence[NamedEvaluator],
        *,
        scratch: Path,
        rules: Sequence[Rule] = (),
        window: int = WINDOW,
        max_left_out: float = 0.1,
    ) -> None:
        """`scratch`: a directory for what lies on disk between two steps. Raises ComparisonError for a rule."""
        check_rules(evaluators, rules)
        self._sources = Sources(recording="recording", baseline=Recorded(), candidate=_Shadowed(replay), seed=SEED)
        self._evaluators = tuple(evaluators)
        self._evidence = scratch / "evidence.jsonl"
        self._rules = tuple(rules)
        self._max_left_out = max_left_out
        self._pairs: dict[str, deque[Pair]] = {one.name: deque(maxlen=window) for one in evaluators}
        self._missing: deque[tuple[MissingLine, ...]] = deque(maxlen=window)
        self._diverged: deque[str | None] = deque(maxlen=window)
        self._about: Comparison | None = None
        self.window = window

    async def add(self, cases: Sequence[RecordedRun]) -> Path:
        """Evaluate these, which are recorded and played. An evaluator that raises is an outcome.

        Returns the evidence of these alone, which the next call writes over.
        """
        await compare(cases, self._sources, self._evaluators, into=self._evidence)
        found = read_comparison(self._evidence)
        self._about = found
        for name, pairs in found.columns.items():
            self._pairs[name].extend(pairs)
        diverged = set(found.diverged)
        for case in cases:
            self._diverged.append(case.run_id if case.run_id in diverged else None)
            self._missing.append(tuple(line for line in found.missing if line.run_id == case.run_id))
        return self._evidence

    def standing(self) -> Standing | None:
        """How it stands; None before the first pair."""
        if self._about is None:
            return None
        comparison = replace(
            self._about,
            columns={name: tuple(pairs) for name, pairs in self._pairs.items()},
            missing=tuple(line for lines in self._missing for line in lines),
            diverged=tuple(run_id for run_id in self._diverged if run_id is not None),
        )
        verdict = judge_rules(comparison, self._rules, max_left_out=self._max_left_out)
        return Standing(comparison=comparison, summaries=summarize(comparison), verdict=verdict)
