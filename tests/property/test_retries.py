"""No wait exceeds what was agreed, whatever was asked for and whatever a provider says."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.harness.port import Failed
from agentstream.consumers.retries import AttemptsSoFar, RetryCeilings, decide_retry, retry_rules
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.requests import DAY_MS, Retry

spans = st.integers(0, DAY_MS)
asked = st.none() | st.builds(
    Retry, base_ms=st.none() | spans, cap_ms=st.none() | spans, retry_after_ms=st.none() | spans
)
ceilings = st.builds(RetryCeilings, base_ms=spans, cap_ms=spans, retry_after_ms=spans)
failures = st.builds(
    Failed,
    code=st.sampled_from(ErrorCode),
    detail=st.just("-"),
    retriable=st.none() | st.booleans(),
    retry_after_ms=st.none() | st.integers(-(10**9), 10**12),
    lost_with_others=st.booleans(),
)


@given(ceilings, asked, asked, failures, st.integers(0), st.floats(0, 1e9))
def test_a_wait_stays_below_every_ceiling_and_ends_before_the_run_must(
    bounds: RetryCeilings, own: Retry | None, files: Retry | None, failed: Failed, seed: int, left_ms: float
) -> None:
    policy = retry_rules(bounds, own, files).policy
    decision = decide_retry(
        failed, AttemptsSoFar(counted=1), max_attempts=3, time_left_ms=left_ms, rng=Random(seed), policy=policy
    )
    if decision is None:
        return
    after_ms = 0 if failed.retry_after_ms is None else bounds.retry_after_ms + bounds.base_ms
    assert 0 <= decision.delay_ms <= max(bounds.cap_ms, after_ms)
    assert decision.delay_ms <= left_ms + 1


@given(asked, st.lists(failures, max_size=40), st.integers(1, 20))
def test_a_run_that_always_fails_ends(own: Retry | None, failed: list[Failed], max_attempts: int) -> None:
    policy, so_far, tries = retry_rules(RetryCeilings(), own).policy, AttemptsSoFar(), 0
    for failure in failed:
        tries, so_far = tries + 1, so_far.plus(failure)
        if (
            decide_retry(
                failure, so_far, max_attempts=max_attempts, time_left_ms=1e12, rng=Random(tries), policy=policy
            )
            is None
        ):
            break
    assert tries <= max_attempts + 5
