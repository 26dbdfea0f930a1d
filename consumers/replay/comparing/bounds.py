"""One-sided bounds of (candidate − factor × baseline): what "at 95%" is made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentstream.consumers.replay.comparing.bootstrap import bound, quantile, resampled, resampled_means
from agentstream.consumers.replay.comparing.columns import Column, Worth
from agentstream.consumers.replay.comparing.rules import Rule
from agentstream.consumers.replay.comparing.statistics import exact_share_lower, paired_share_upper

_MOST_PAIRS = 100_000
_ROUNDING = 1e-12
"""One failure of one run is 5 % with a certainty of 95 %, and 4e-17 more by the rounding of floats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What is made of a column."""

    share: float | None = None
    """A quantile; None: the mean."""
    factor: float = 1.0
    """What the baseline is multiplied by; 0: there is none."""

    def of(self, worths: Sequence[Worth]) -> float:
        """Candidate − factor × baseline. Raises ZeroDivisionError or ValueError without cases."""
        return self.candidate(worths) - (self.factor * self.baseline(worths) if self.factor else 0.0)

    def baseline(self, worths: Sequence[Worth]) -> float:
        """The baseline's figure."""
        return self._side([worth.baseline for worth in worths])

    def candidate(self, worths: Sequence[Worth]) -> float:
        """The candidate's figure."""
        return self._side([worth.candidate for worth in worths])

    def _side(self, values: Sequence[float]) -> float:
        return math.fsum(values) / len(values) if self.share is None else quantile(values, self.share)


Bound = Callable[[float], float]
"""A probability to the value that the true figure is below with it: 0.95 gives an upper bound, 0.05 a lower one."""


def bounds_of(found: Column, figure: Figure, seed: int) -> Bound:
    """Bounds of the figure. Shares of independent single runs by exact tests, all else by drawing sessions again."""
    if _is_share(found, figure):
        return _share_bounds(found, figure)
    clusters = found.clusters
    if figure.share is None:
        differences = [[worth.candidate - figure.factor * worth.baseline for worth in one] for one in clusters]
        rising = resampled_means(differences, seed)
    else:
        rising = resampled(clusters, figure.of, seed)
    return lambda probability: bound(rising, probability, len(clusters))


def units_needed(found: Column, figure: Figure, rule: Rule) -> int | None:
    """How many independent cases (sessions, where they hold several) it takes for the bound to get beyond the margin
    at all, were every one of them bad. None: no number of them does.

    With n of them all on one side the chance of that is 0.5 ** n without any difference: 5 for 95 %.
    """
    confidence, margin = rule.confidence or 0.5, rule.margin
    if not _is_share(found, figure):
        return math.ceil(math.log(1.0 - confidence) / math.log(0.5))
    if figure.factor == 0.0 and rule.operator == ">":
        return _fewest(lambda pairs: exact_share_lower(pairs, pairs, confidence) > margin + _ROUNDING)
    if figure.factor == 0.0:
        return _fewest(lambda pairs: 1.0 - exact_share_lower(pairs, pairs, confidence) < margin)
    limit = margin if rule.operator == "<" else -margin
    return _fewest(lambda pairs: paired_share_upper(0, pairs, pairs, confidence) < limit)


def _is_share(found: Column, figure: Figure) -> bool:
    return (
        found.single
        and found.independent
        and figure.share is None
        and figure.factor in {0.0, 1.0}
        and all(worth.baseline in {0.0, 1.0} and worth.candidate in {0.0, 1.0} for worth in found.worths)
    )


def _share_bounds(found: Column, figure: Figure) -> Bound:
    pairs = len(found.worths)
    passes = sum(worth.candidate == 1.0 for worth in found.worths)
    better = sum(worth.candidate > worth.baseline for worth in found.worths)
    worse = sum(worth.candidate < worth.baseline for worth in found.worths)

    def paired(probability: float) -> float:
        if probability >= 0.5:
            return paired_share_upper(better, worse, pairs, probability)
        return -paired_share_upper(worse, better, pairs, 1.0 - probability)

    def alone(probability: float) -> float:
        if probability >= 0.5:
            return 1.0 - exact_share_lower(pairs - passes, pairs, probability)
        return exact_share_lower(passes, pairs, 1.0 - probability)

    return paired if figure.factor else alone


def _fewest(enough: Callable[[int], bool]) -> int | None:
    if not enough(_MOST_PAIRS):
        return None
    low, high = 0, _MOST_PAIRS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
