"""Whether a failed attempt is tried again."""

from random import Random

import pytest

from agentstream.consumers.harness.port import Failed
from agentstream.consumers.retries import (
    MAX_LOST_WITH_OTHERS,
    AttemptsSoFar,
    RetryCeilings,
    RetryDecision,
    RetryPolicy,
    RetryRules,
    decide_retry,
    is_retriable,
    retry_rules,
)
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.requests import Retry

HOUR_MS = 3_600_000.0


def decide(
    failed: Failed, counted: int = 1, *, max_attempts: int = 9, left_ms: float = HOUR_MS, rng: Random | None = None
) -> RetryDecision | None:
    return decide_retry(
        failed,
        AttemptsSoFar(counted=counted),
        max_attempts=max_attempts,
        time_left_ms=left_ms,
        rng=rng or Random(1),
        policy=lambda _: RetryPolicy(base_ms=100, cap_ms=1_000, max_retry_after_ms=60_000),
    )


def failed(code: ErrorCode = ErrorCode.PROVIDER_ERROR, **more: object) -> Failed:
    return Failed(code=code, detail="-", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [ErrorCode.PROVIDER_ERROR, ErrorCode.RATE_LIMITED, ErrorCode.HARNESS_CRASHED])
def test_what_the_table_calls_retriable_is_tried_again(code: ErrorCode) -> None:
    assert decide(failed(code)) is not None


@pytest.mark.parametrize("code", [ErrorCode.PROVIDER_AUTH, ErrorCode.MAX_TURNS, ErrorCode.TOTAL_TIMEOUT])
def test_what_the_table_calls_fatal_is_not(code: ErrorCode) -> None:
    assert decide(failed(code)) is None


def test_an_adapter_may_know_better() -> None:
    assert not is_retriable(failed(retriable=False))
    assert is_retriable(failed(ErrorCode.PROVIDER_AUTH, retriable=True))


def test_attempts_are_bounded() -> None:
    assert decide(failed(), counted=2, max_attempts=3) is not None
    assert decide(failed(), counted=3, max_attempts=3) is None


@pytest.mark.parametrize(("counted", "bound"), [(1, 100), (2, 200), (4, 800), (5, 1_000), (9, 1_000), (5_000, 1_000)])
def test_waits_spread_over_the_whole_of_a_growing_but_capped_span(counted: int, bound: int) -> None:
    rng = Random(7)
    waits = [decide(failed(), counted, max_attempts=10_000, rng=rng) for _ in range(500)]
    delays = [wait.delay_ms for wait in waits if wait]
    assert len(delays) == 500
    assert max(delays) <= bound
    assert max(delays) > bound * 0.9
    assert min(delays) < bound * 0.1


@pytest.mark.parametrize(("asked", "honoured"), [(5_000, 5_000), (0, 0), (-3, 0), (10_000_000, 60_000)])
def test_retry_after_is_honoured_up_to_a_bound(asked: int, honoured: int) -> None:
    decision = decide(failed(ErrorCode.RATE_LIMITED, retry_after_ms=asked))
    assert decision is not None
    assert honoured <= decision.delay_ms <= honoured + 100


def test_a_wait_that_outlasts_the_run_is_not_begun() -> None:
    assert decide(failed(retry_after_ms=5_000), left_ms=5_000) is None
    assert decide(failed(retry_after_ms=5_000), left_ms=6_000) is not None


def test_an_attempt_lost_with_others_costs_nothing_but_not_for_ever() -> None:
    lost, so_far = failed(ErrorCode.HARNESS_CRASHED, lost_with_others=True), AttemptsSoFar()
    for _ in range(MAX_LOST_WITH_OTHERS):
        so_far = so_far.plus(lost)
    assert so_far == AttemptsSoFar(counted=0, free=MAX_LOST_WITH_OTHERS)
    assert so_far.plus(lost).counted == 1
    assert so_far.plus(failed()).counted == 1


def test_the_same_random_numbers_give_the_same_wait() -> None:
    assert decide(failed(), rng=Random(5)) == decide(failed(), rng=Random(5))


def test_a_provider_that_says_too_many_is_given_more_time_than_one_that_hiccups() -> None:
    rules = RetryRules()
    assert rules.policy(ErrorCode.PROVIDER_ERROR) == RetryPolicy()
    assert rules.policy(ErrorCode.RATE_LIMITED).base_ms == 2_000


def test_the_first_that_asks_for_a_wait_gets_it_up_to_the_ceilings() -> None:
    ceilings = RetryCeilings(base_ms=1_000, cap_ms=4_000, retry_after_ms=9_000)
    asked, files = Retry(base_ms=0, cap_ms=5_000), Retry(base_ms=700, retry_after_ms=8_000)
    rules = retry_rules(ceilings, asked, None, files)
    for code in (ErrorCode.PROVIDER_ERROR, ErrorCode.RATE_LIMITED):
        assert rules.policy(code) == RetryPolicy(base_ms=0, cap_ms=4_000, max_retry_after_ms=8_000)
    assert rules.to_wire() == Retry(base_ms=0, cap_ms=4_000, retry_after_ms=8_000)


def test_no_default_exceeds_the_ceilings_either() -> None:
    rules = retry_rules(RetryCeilings(base_ms=900, cap_ms=800, retry_after_ms=700), None, None)
    assert rules.policy(ErrorCode.RATE_LIMITED) == RetryPolicy(base_ms=900, cap_ms=800, max_retry_after_ms=700)
