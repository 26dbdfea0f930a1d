"""A column of pairs as numbers: what each case is worth on each side, in clusters of one session.

A case is worth the mean over its repeats. A pass counts 1, its failure 0; an outcome that is an error of the evaluator,
or of which it had nothing to say, counts on neither side, and neither does the case if a side has no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentstream.consumers.replay.comparing.comparison import Outcome, Pair
from agentstream.consumers.replay.comparing.statistics import pass_at_k

Kind = Literal["passed", "value"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """One case that has both sides."""

    run_id: str
    """The case."""
    session_id: str
    """Its session."""
    baseline: float
    """What it is worth there."""
    candidate: float
    """What it is worth here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """The cases of one evaluator that have both sides."""

    kind: Kind
    """Whether passes are counted, or numbers."""
    worths: tuple[Worth, ...]
    """The cases."""
    left_out: int
    """Cases that lack a side: no answer, an error of the evaluator, or nothing said."""
    single: bool
    """Whether no case has several repeats."""

    @property
    def clusters(self) -> list[list[Worth]]:
        """The cases by session: what is drawn again."""
        found: dict[str, list[Worth]] = {}
        for worth in self.worths:
            found.setdefault(worth.session_id, []).append(worth)
        return list(found.values())

    @property
    def independent(self) -> bool:
        """Whether every case is a session of its own."""
        return len({worth.session_id for worth in self.worths}) == len(self.worths)

    @property
    def left_out_share(self) -> float:
        """Of all cases, those that could not be counted."""
        total = len(self.worths) + self.left_out
        return self.left_out / total if total else 0.0


def kind_of(pairs: Sequence[Pair]) -> Kind:
    """Passes if any outcome has one, else numbers."""
    outcomes = (outcome for pair in pairs for outcome in (*pair.baseline, *pair.candidate))
    return "passed" if any(outcome.passed is not None for outcome in outcomes) else "value"


def column(pairs: Sequence[Pair], kind: Kind, *, candidate_only: bool = False, k: int | None = None) -> Column:
    """The pairs as numbers.

    `candidate_only` for rules without a baseline: its side is 0 throughout. With `k` a case is worth its pass@k, and
    one with fewer repeats than k lacks that side.
    """
    worths = []
    single = True
    for pair in pairs:
        before = 0.0 if candidate_only else _worth(pair.baseline, kind, k)
        now = _worth(pair.candidate, kind, k)
        if before is not None and now is not None:
            single = single and len(pair.candidate) == 1 and (candidate_only or len(pair.baseline) == 1)
            worths.append(Worth(run_id=pair.run_id, session_id=pair.session_id, baseline=before, candidate=now))
    return Column(kind=kind, worths=tuple(worths), left_out=len(pairs) - len(worths), single=single)


def _worth(outcomes: Sequence[Outcome], kind: Kind, k: int | None) -> float | None:
    found = numbers(outcomes, kind)
    if not found:
        return None
    return sum(found) / len(found) if k is None else pass_at_k(round(sum(found)), len(found), k)


def numbers(outcomes: Sequence[Outcome], kind: Kind) -> list[float]:
    """What the outcomes are worth, those that say something. Passes count as 1 and 0 where numbers were asked for."""
    found: list[float] = []
    for outcome in outcomes:
        if kind == "value" and outcome.value is not None:
            found.append(outcome.value)
        elif outcome.passed is not None:
            found.append(float(outcome.passed))
    return found
