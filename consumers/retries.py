"""Whether a failed attempt is tried again, and when. Pure: randomness is an argument."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from agentstream.consumers.harness.port import Failed
from agentstream.schemas.errors import ErrorCode, error_rule


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts: full jitter under an exponential bound."""

    base_ms: int = 500
    """Bound of the first wait; it doubles with each attempt."""
    cap_ms: int = 30_000
    """The bound never grows beyond this."""
    max_retry_after_ms: int = 120_000
    """A provider's Retry-After is honoured up to this: the session's later runs wait meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryDecision:
    """Try again."""

    delay_ms: int
    """After so long."""


DEFAULT_POLICY = RetryPolicy()
RATE_LIMIT_POLICY = RetryPolicy(base_ms=2_000)
"""A provider that says "too many" needs longer than one that hiccups."""
MAX_LOST_WITH_OTHERS = 5
"""So often a run is tried again for free because its process died under several runs. After that each try counts: a
process that dies again and again is worth no endless loop."""


def policy_for(code: ErrorCode) -> RetryPolicy:
    """The policy of an error code."""
    return RATE_LIMIT_POLICY if code is ErrorCode.RATE_LIMITED else DEFAULT_POLICY


def is_retriable(failed: Failed) -> bool:
    """Whether another attempt may succeed: as the table says, unless the adapter knows better."""
    return error_rule(failed.code).retriable if failed.retriable is None else failed.retriable


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptsSoFar:
    """What has been tried."""

    counted: int = 0
    """Attempts that ended by a fault of their own."""
    free: int = 0
    """Attempts whose process died while others ran in it."""

    def plus(self, failed: Failed) -> "AttemptsSoFar":
        """With one more, failed attempt."""
        if failed.lost_with_others and self.free < MAX_LOST_WITH_OTHERS:
            return AttemptsSoFar(counted=self.counted, free=self.free + 1)
        return AttemptsSoFar(counted=self.counted + 1, free=self.free)


def decide_retry(
    failed: Failed,
    so_far: AttemptsSoFar,
    *,
    max_attempts: int,
    time_left_ms: float,
    rng: Random,
    policy: Callable[[ErrorCode], RetryPolicy] = policy_for,
) -> RetryDecision | None:
    """Decide after a failed attempt, which `so_far` includes. None: the failure stands.

    It stands if it is not retriable, `max_attempts` are used up, or the wait would outlast the run's total time.
    """
    if not is_retriable(failed) or so_far.counted >= max_attempts:
        return None
    rules = policy(failed.code)
    bound = min(rules.cap_ms, rules.base_ms * 2 ** min(so_far.counted + so_far.free - 1, 20))
    delay = rng.uniform(0, bound)
    if failed.retry_after_ms is not None:
        # Plus jitter, or all runs that one provider turned away come back in the same millisecond.
        delay = min(max(failed.retry_after_ms, 0), rules.max_retry_after_ms) + rng.uniform(0, rules.base_ms)
    return RetryDecision(delay_ms=round(delay)) if delay < time_left_ms else None
