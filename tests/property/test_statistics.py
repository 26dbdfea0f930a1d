"""The statistics of comparisons: against scipy's figures, and against simulated truth."""

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.replay.comparing.bootstrap import bound, quantile, resampled_means
from agentstream.consumers.replay.comparing.bounds import Figure, bounds_of, units_needed
from agentstream.consumers.replay.comparing.columns import Column, Kind, Worth
from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.statistics import (
    binomial_upper_tail,
    exact_share_lower,
    incomplete_beta,
    mcnemar_exact,
    paired_share_upper,
    pass_at_k,
    t_quantile,
    wilson_interval,
)

SEEDS = 200
# Of 200 seeds at 5 % more than 20 are false alarms once in 900 times.
MOST_FALSE_ALARMS = 20

Rows = Sequence[tuple[str, float, float]]


def made(rows: Rows, kind: Kind = "passed") -> Column:
    worths = tuple(
        Worth(run_id=str(n), session_id=session, baseline=before, candidate=now)
        for n, (session, before, now) in enumerate(rows)
    )
    return Column(kind=kind, worths=worths, left_out=0, single=True)


def alarms(draw: Callable[[random.Random], Column], margin: float = 0.0, *, above: bool = False) -> int:
    """How many of the seeds are said to be worse by more than the margin, at 95 %."""
    count = 0
    for seed in range(SEEDS):
        bounds = bounds_of(draw(random.Random(seed)), Figure(), seed)
        count += bounds(0.05) > margin if above else bounds(0.95) < margin
    return count


def singles(generator: random.Random, cases: int = 1_000, *, lost: float = 0.0) -> Column:
    """80 % pass, every fifth answer is drawn anew on the other side; then `lost` of all are made to fail."""
    rows = []
    for n in range(cases):
        before = generator.random() < 0.8
        now = generator.random() < 0.8 if generator.random() < 0.2 else before
        now = now and generator.random() >= lost / 0.8
        rows.append((str(n), float(before), float(now)))
    return made(rows)


def sessions(generator: random.Random) -> Column:
    """60 sessions of 10 cases that stand or fall together, either side as good as the other."""
    rows: list[tuple[str, float, float]] = []
    for n in range(60):
        before, now = (generator.choice((0.0, 1.0)) for _ in range(2))
        rows += [(str(n), before, now)] * 10
    return made(rows)


def latencies(generator: random.Random, *, factor: float = 1.0) -> Column:
    rows = []
    for n in range(120):
        common = generator.lognormvariate(0, 0.5)
        before, now = (common * generator.lognormvariate(0, 0.4) for _ in range(2))
        rows.append((str(n), before, factor * now))
    return made(rows, "value")


# scipy 1.17: binom.sf, binomtest, t.ppf, beta.cdf; Tango's bound from a numeric maximum of the likelihood.
@pytest.mark.parametrize(
    ("found", "scipy"),
    [
        (binomial_upper_tail(12, 20, 0.5), 0.2517223358154297),
        (binomial_upper_tail(30, 1000, 0.02), 0.02069651867323949),
        (binomial_upper_tail(600, 1000, 0.55), 0.0007933693696643445),
        (mcnemar_exact(0, 5), 0.0625),
        (mcnemar_exact(3, 12), 0.03515625),
        (mcnemar_exact(60, 40), 0.05688793364098089),
        (wilson_interval(8, 10, 0.95)[0], 0.4901624715366418),
        (wilson_interval(950, 1000, 0.95)[1], 0.9618697376072511),
        (wilson_interval(0, 10, 0.95)[1], 0.27753279986288926),
        (exact_share_lower(1, 1, 0.95), 0.05),
        (exact_share_lower(8, 10, 0.95), 0.4930986989367977),
        (exact_share_lower(30, 1000, 0.99), 0.018839639713531746),
        (t_quantile(0.95, 4), 2.1318467863266495),
        (t_quantile(0.99, 1), 31.820515953773935),
        (t_quantile(0.975, 19), 2.0930240544083087),
        (incomplete_beta(10, 3, 0.7), 0.25281534785499993),
        (incomplete_beta(500, 501, 0.5), 0.5126125090891802),
    ],
)
def test_figures_are_those_of_scipy(found: float, scipy: float) -> None:
    assert found == pytest.approx(scipy, rel=1e-9)


@pytest.mark.parametrize(
    ("better", "worse", "pairs", "bound"),
    [(20, 70, 1000, -0.034866), (3, 12, 50, -0.036129), (0, 9, 44, -0.088720), (5, 1, 80, 0.112481)],
)
def test_the_bound_of_paired_shares_is_tangos_or_the_exact_one(
    better: int, worse: int, pairs: int, bound: float
) -> None:
    # Tango's are −0.035016, −0.057214, −0.123080 and 0.112481: too sure where few pairs differ.
    assert paired_share_upper(better, worse, pairs, 0.95) == pytest.approx(bound, abs=1e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200), st.sampled_from([0.9, 0.95, 0.99]))
def test_worse_than_before_is_said_only_if_mcnemars_test_says_so(better: int, worse: int, same: int, at: float) -> None:
    upper = paired_share_upper(better, worse, better + worse + same, at)
    p = binomial_upper_tail(worse, better + worse, 0.5)
    assert upper >= (better - worse) / (better + worse + same) - 1e-9
    if upper < -1e-9:
        assert p <= 1 - at + 1e-9


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 12))
def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_pass(repeats: int, passes: int, k: int) -> None:
    passes = min(passes, repeats)
    if k > repeats:
        assert pass_at_k(passes, repeats, k) is None
        return
    misses = math.comb(repeats - passes, k) / math.comb(repeats, k)
    assert pass_at_k(passes, repeats, k) == pytest.approx(1 - misses)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 5))
def test_resampling_is_the_same_for_the_same_seed_and_stays_between_the_extremes(
    values: list[float], seed: int
) -> None:
    clusters = [[value] for value in values]
    rising = resampled_means(clusters, seed)
    assert rising == resampled_means(clusters, seed)
    low, high = (bound(rising, share, len(values)) for share in (0.05, 0.95))
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


@given(st.lists(st.floats(-100, 100), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_between_the_extremes(values: list[float], share: float) -> None:
    assert min(values) - 1e-9 <= quantile(values, share) <= max(values) + 1e-9


def test_pure_noise_of_1000_cases_is_rarely_called_worse() -> None:
    assert 0 < alarms(singles) <= MOST_FALSE_ALARMS


def test_a_loss_of_exactly_the_margin_is_rarely_called_more_than_that() -> None:
    assert alarms(lambda generator: singles(generator, lost=0.02), -0.02) <= MOST_FALSE_ALARMS


def test_five_points_of_1000_cases_are_found() -> None:
    assert alarms(lambda generator: singles(generator, lost=0.05)) >= 0.95 * SEEDS


def test_noise_of_whole_sessions_is_rarely_called_worse() -> None:
    assert alarms(sessions) <= MOST_FALSE_ALARMS


def test_to_take_the_cases_of_a_session_for_independent_would_raise_false_alarms() -> None:
    def apart(generator: random.Random) -> Column:
        return made([(str(n), w.baseline, w.candidate) for n, w in enumerate(sessions(generator).worths)])

    assert alarms(apart) > 2 * MOST_FALSE_ALARMS


def test_noise_of_latencies_is_rarely_called_slower_and_a_third_more_is_found() -> None:
    assert alarms(latencies, above=True) <= MOST_FALSE_ALARMS
    assert alarms(lambda generator: latencies(generator, factor=1.3), above=True) >= 0.95 * SEEDS


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        ("pass_rate(x) < baseline at 95%", 5),
        ("pass_rate(x) < baseline at 99%", 7),
        ("pass_rate(x) < baseline - 0.5 at 95%", 11),
        ("mean(x) < baseline - 1 at 95%", None),
        ("pass_rate(x) < 0.9 at 95%", 2),
        ("errors > 0.05 at 95%", 2),
    ],
)
def test_how_many_cases_a_rule_needs_is_where_it_could_first_fail(rule: str, needed: int | None) -> None:
    parsed = parse_rule(rule)
    column = made([("s", 1.0, 0.0)])
    assert units_needed(column, Figure(factor=parsed.factor), parsed) == needed
