"""What got better and worse: one line for each evaluator, with intervals, and the noise of the baseline beside it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from agentstream.consumers.replay.comparing.bootstrap import bound, quantile, resampled_means
from agentstream.consumers.replay.comparing.bounds import Figure, bounds_of
from agentstream.consumers.replay.comparing.columns import Column, Kind, Worth, column, kind_of, numbers
from agentstream.consumers.replay.comparing.comparison import Comparison, Outcome, Pair
from agentstream.consumers.replay.comparing.evidence import EvaluatorLine
from agentstream.consumers.replay.comparing.statistics import (
    mcnemar_exact,
    paired_share_upper,
    pass_at_k,
    wilson_interval,
)

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class SideSummary:
    """One side of one evaluator, over the cases that have both."""

    mean: float
    """Share of passes, or mean of the numbers."""
    interval: tuple[float, float] | None
    """Of a share, two-sided 95 %: Wilson's for independent cases, by resampling sessions otherwise. None for numbers:
    what varies from case to case says nothing of a change."""
    median: float
    """Of the cases."""
    p95: float
    """Of the cases."""
    pass_at: tuple[tuple[int, float], ...] = ()
    """(k, pass@k) for each k up to the repeats; empty without repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The baseline against itself: what changes from one repeat to another though nothing changed."""

    changed: float
    """Of all pairs of repeats of a case, the share whose outcome differs."""
    candidate_changed: float
    """Of all pairs of a repeat of the baseline and one of the candidate, the share whose outcome differs."""
    difference: float
    """Mean of (second repeat − first)."""
    interval: tuple[float, float]
    """Its two-sided 95 % interval: it should hold 0, and a candidate's difference inside it is noise."""
    cases: int
    """Cases with several repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorSummary:
    """One evaluator."""

    evaluator: EvaluatorLine
    """The evaluator."""
    kind: Kind
    """Passes or numbers."""
    cases: int
    """Cases with both sides; where nothing has a baseline, those of the candidate."""
    clusters: int
    """Sessions they are of."""
    left_out: int
    """Cases without."""
    failures: int
    """Outcomes that are an error of the evaluator."""
    first_failure: str | None = None
    """What the first of them says."""
    only_numbers: int = 0
    """Outcomes that are a number and neither pass nor fail, where others do: they are not counted."""
    baseline: SideSummary | None = None
    """The baseline; None without cases."""
    candidate: SideSummary | None = None
    """The candidate; None without cases."""
    difference: float = 0.0
    """Candidate − baseline."""
    interval: tuple[float, float] = (0.0, 0.0)
    """Two-sided 95 % interval of the difference of the means."""
    better: tuple[str, ...] = ()
    """Cases that got better, those that changed most first."""
    worse: tuple[str, ...] = ()
    """Cases that got worse, those that changed most first."""
    mcnemar: float | None = None
    """Two-sided p of McNemar's exact test, for passes of independent single runs."""
    noise: Noise | None = None
    """The baseline against itself, where it has repeats."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        low, high = self.interval
        return self.baseline is not None and (low > 0.0 or high < 0.0)


def summarize(comparison: Comparison) -> tuple[EvaluatorSummary, ...]:
    """A summary for each evaluator, in order."""
    seed = comparison.about.seed
    return tuple(_summary(one, comparison.columns[one.name], seed) for one in comparison.about.evaluators)


def _summary(one: EvaluatorLine, pairs: Sequence[Pair], seed: int) -> EvaluatorSummary:
    kind = kind_of(pairs)
    found = column(pairs, kind)
    outcomes = [each for pair in pairs for each in (*pair.baseline, *pair.candidate)]
    failures = [each.error for each in outcomes if each.error is not None]
    first_failure = failures[0] if failures else None
    only_numbers = sum(each.passed is None and each.value is not None for each in outcomes) if kind == "passed" else 0
    bare = EvaluatorSummary(
        evaluator=one,
        kind=kind,
        cases=len(found.worths),
        clusters=len(found.clusters),
        left_out=found.left_out,
        failures=len(failures),
        first_failure=first_failure,
        only_numbers=only_numbers,
    )
    if not found.worths:
        return _alone(bare, pairs, seed)
    figure = Figure()
    rising = -1.0 if one.better == "lower" else 1.0
    changed = sorted(
        (worth for worth in found.worths if worth.candidate != worth.baseline),
        key=lambda worth: -abs(worth.candidate - worth.baseline),
    )
    better = [worth.run_id for worth in changed if rising * (worth.candidate - worth.baseline) > 0]
    worse = [worth.run_id for worth in changed if rising * (worth.candidate - worth.baseline) < 0]
    plain = kind == "passed" and found.single and found.independent
    return EvaluatorSummary(
        evaluator=one,
        kind=kind,
        cases=bare.cases,
        clusters=bare.clusters,
        left_out=bare.left_out,
        failures=len(failures),
        first_failure=first_failure,
        only_numbers=only_numbers,
        baseline=_side(found, [pair.baseline for pair in pairs], [w.baseline for w in found.worths], seed),
        candidate=_side(found, [pair.candidate for pair in pairs], [w.candidate for w in found.worths], seed),
        difference=figure.of(found.worths),
        interval=_two_sided(found, figure, seed),
        better=tuple(better),
        worse=tuple(worse),
        mcnemar=mcnemar_exact(len(better), len(worse)) if plain else None,
        noise=_noise(pairs, kind, seed),
    )


def _alone(bare: EvaluatorSummary, pairs: Sequence[Pair], seed: int) -> EvaluatorSummary:
    """The candidate by itself, where nothing has a baseline: a data set that only says what is right."""
    found = column(pairs, bare.kind, candidate_only=True)
    if not found.worths:
        return bare
    side = _side(found, [pair.candidate for pair in pairs], [worth.candidate for worth in found.worths], seed)
    return replace(bare, candidate=side, cases=len(found.worths), clusters=len(found.clusters), left_out=found.left_out)


def _two_sided(found: Column, figure: Figure, seed: int) -> tuple[float, float]:
    values = {value for worth in found.worths for value in (worth.baseline, worth.candidate)}
    if figure == Figure() and values <= {0.0, 1.0} and all(one.baseline == one.candidate for one in found.worths):
        # Drawn again, what never differs never differs: six cases with repeats would be "no difference, surely".
        widest = paired_share_upper(0, 0, len(found.clusters), 0.5 + CONFIDENCE / 2.0)
        return -widest, widest
    bounds = bounds_of(found, figure, seed)
    return bounds((1.0 - CONFIDENCE) / 2.0), bounds(0.5 + CONFIDENCE / 2.0)


def _side(found: Column, outcomes: Sequence[Sequence[Outcome]], values: Sequence[float], seed: int) -> SideSummary:
    interval: tuple[float, float] | None = None
    if found.kind == "passed" and found.independent and found.single:
        interval = wilson_interval(sum(values), len(values), CONFIDENCE)
    elif found.kind == "passed" and min(values) == max(values):
        # Drawn again, what never differs never differs: 3 of 3 would be "100 %, surely".
        clusters = len(found.clusters)
        interval = wilson_interval(values[0] * clusters, clusters, CONFIDENCE)
    elif found.kind == "passed":
        alone = [
            Worth(run_id=worth.run_id, session_id=worth.session_id, baseline=0.0, candidate=value)
            for worth, value in zip(found.worths, values, strict=True)
        ]
        one_side = Column(kind=found.kind, worths=tuple(alone), left_out=0, single=found.single)
        interval = _two_sided(one_side, Figure(factor=0.0), seed)
    return SideSummary(
        mean=statistics.fmean(values),
        interval=interval,
        median=quantile(values, 0.5),
        p95=quantile(values, 0.95),
        pass_at=_pass_at(outcomes) if found.kind == "passed" else (),
    )


def _pass_at(outcomes: Sequence[Sequence[Outcome]]) -> tuple[tuple[int, float], ...]:
    tries = [numbers(one, "passed") for one in outcomes]
    most = max(map(len, tries), default=0)
    if most < 2:
        return ()
    found = []
    for k in range(1, most + 1):
        each = [value for one in tries if (value := pass_at_k(round(sum(one)), len(one), k)) is not None]
        found.append((k, statistics.fmean(each)))
    return tuple(found)


def _noise(pairs: Sequence[Pair], kind: Kind, seed: int) -> Noise | None:
    sessions: dict[str, list[float]] = {}
    changed = total = cases = moved = beside = 0
    for pair in pairs:
        values = numbers(pair.baseline, kind)
        if len(values) < 2:
            continue
        cases += 1
        for first, second in combinations(values, 2):
            total += 1
            changed += first != second
        for before, now in product(values, numbers(pair.candidate, kind)):
            beside += 1
            moved += before != now
        sessions.setdefault(pair.session_id, []).append(values[1] - values[0])
    if not cases:
        return None
    clusters = list(sessions.values())
    rising = resampled_means(clusters, seed)
    return Noise(
        changed=changed / total,
        candidate_changed=moved / beside if beside else 0.0,
        difference=statistics.fmean(value for cluster in clusters for value in cluster),
        interval=(
            bound(rising, (1 - CONFIDENCE) / 2, len(clusters)),
            bound(rising, 0.5 + CONFIDENCE / 2, len(clusters)),
        ),
        cases=cases,
    )
