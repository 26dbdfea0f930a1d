"""Exact and asymptotic intervals for shares, and the few distributions they need. Plain functions, no library.

scipy would be 110 MB for these; the tests hold each function against values that scipy 1.16 computed.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

_NORMAL = NormalDist()
_BISECTIONS = 80
"""Halvings of an interval of length 2: far below what a float can tell apart."""


def binomial_upper_tail(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) for X ~ Binomial(trials, share)."""
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    return incomplete_beta(successes, trials - successes + 1, share)


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided p-value of McNemar's exact test: of the pairs that differ, each way is as likely. 1.0 without any."""
    return min(1.0, 2.0 * binomial_upper_tail(max(better, worse), better + worse, 0.5))


def wilson_interval(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Two-sided Wilson score interval of a share; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    return (
        wilson_lower(successes, trials, 0.5 + confidence / 2),
        1.0 - wilson_lower(trials - successes, trials, 0.5 + confidence / 2),
    )


def wilson_lower(successes: float, trials: float, confidence: float) -> float:
    """One-sided lower Wilson bound of a share."""
    z = _NORMAL.inv_cdf(confidence)
    share, weight = successes / trials, z * z / trials
    half = z * math.sqrt(share * (1.0 - share) / trials + weight / (4.0 * trials))
    return max(0.0, (share + weight / 2.0 - half) / (1.0 + weight))


def exact_share_lower(successes: int, trials: int, confidence: float) -> float:
    """One-sided lower bound of a share, Clopper and Pearson's: never too sure, however few the trials."""
    if successes <= 0:
        return 0.0
    return _bisect(lambda share: binomial_upper_tail(successes, trials, share) - (1.0 - confidence), 0.0, 1.0)


def paired_share_upper(better: int, worse: int, pairs: int, confidence: float) -> float:
    """One-sided upper bound of (share now − share before) over pairs that pass or fail, each independent of the others.

    The more cautious of two bounds. Tango's score bound holds its level for any margin, but is asymptotic: three pairs
    that all got worse would do for 95 % (z = 1.73). Clopper and Pearson's, on which way the pairs that differ went, is
    exact for margin 0 (there it is McNemar's exact test), but takes the number of pairs that differ as given.
    """
    return max(_tango_upper(better, worse, pairs, confidence), _conditional_upper(better, worse, pairs, confidence))


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t, for probability >= 0.5."""

    def tail(value: float) -> float:
        return 0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + value * value))

    high = 1.0
    while tail(high) > 1.0 - probability:
        high *= 2.0
    return _bisect(lambda value: 1.0 - probability - tail(value), 0.0, high)


def pass_at_k(passes: int, repeats: int, k: int) -> float | None:
    """The chance that at least one of k tries passes, estimated without bias; None with fewer than k repeats."""
    if repeats < k:
        return None
    return 1.0 - math.comb(repeats - passes, k) / math.comb(repeats, k)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by Lentz's continued fraction."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return front * _continued_fraction(a, b, x) / a


def _continued_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0), tiny)
    total = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away_from_zero(1.0 + term * d, tiny)
            c = _away_from_zero(1.0 + term / c, tiny)
            total *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return total


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _tango_upper(better: int, worse: int, pairs: int, confidence: float) -> float:
    """The largest difference that the score test does not reject."""
    z = _NORMAL.inv_cdf(confidence)
    difference = (better - worse) / pairs

    def excess(delta: float) -> float:
        deviation = delta - difference
        return 0.0 if deviation <= 0 else deviation * pairs - z * _score_deviation(better, worse, pairs, delta)

    return _bisect(excess, difference, 1.0)


def _score_deviation(better: int, worse: int, pairs: int, delta: float) -> float:
    """Standard deviation of (better − worse) if the true difference were delta (Tango 1998)."""
    a = 2.0 * pairs
    b = -better - worse + (2.0 * pairs - better + worse) * delta
    c = -worse * delta * (1.0 - delta)
    losing = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    return math.sqrt(max(0.0, pairs * (2.0 * losing + delta * (1.0 - delta))))


def _conditional_upper(better: int, worse: int, pairs: int, confidence: float) -> float:
    differ = better + worse
    if differ == 0:
        return 0.0
    # The largest share of "better" among the pairs that differ which is not too large for what was seen.
    highest = (
        1.0
        if better == differ
        else _bisect(lambda share: binomial_upper_tail(better + 1, differ, share) - confidence, 0.0, 1.0)
    )
    return differ / pairs * (2.0 * highest - 1.0)


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero; the end nearest to it where it does not."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0
