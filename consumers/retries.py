"""Whether a failed attempt is tried again, and when. Pure: randomness is an argument.

Each class of errors has its policy (`schemas/defaults`). A request may ask for other waits, up to the worker's
ceilings; attempts and total time are `limits`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from agentstream.consumers.harness.port import Failed
from agentstream.schemas import defaults
from agentstream.schemas.base import unchecked
from agentstream.schemas.errors import ErrorCode, error_rule
from agentstream.schemas.requests import Retry

_retry = unchecked(Retry)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts: full jitter under an exponential bound."""

    base_ms: int = defaults.RETRY_BASE_MS
    """Bound of the first wait; it doubles with each attempt."""
    cap_ms: int = defaults.RETRY["cap_ms"]
    """The bound never grows beyond this."""
    max_retry_after_ms: int = defaults.RETRY["retry_after_ms"]
    """A provider's Retry-After is honoured up to this: the session's later runs wait meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryDecision:
    """Try again."""

    delay_ms: int
    """After so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryCeilings:
    """What a request may ask for at most, and what no default exceeds."""

    base_ms: int = defaults.RETRY_CEILINGS["base_ms"]
    """Bound of the first wait."""
    cap_ms: int = defaults.RETRY_CEILINGS["cap_ms"]
    """Bound of every wait."""
    retry_after_ms: int = defaults.RETRY_CEILINGS["retry_after_ms"]
    """Up to which a provider's Retry-After is honoured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRules:
    """The waits that take effect for one run."""

    base_ms: int | None = None
    """Bound of the first wait, whatever the error; None: as the error's class has it."""
    cap_ms: int = defaults.RETRY["cap_ms"]
    """Bound of every wait."""
    retry_after_ms: int = defaults.RETRY["retry_after_ms"]
    """Up to which a provider's Retry-After is honoured."""
    max_base_ms: int = defaults.RETRY_CEILINGS["base_ms"]
    """The worker's ceiling for the classes' own first waits."""

    def policy(self, code: ErrorCode) -> RetryPolicy:
        """The policy for an error."""
        own = defaults.RETRY_BASE_MS_OF.get(code, defaults.RETRY_BASE_MS)
        base_ms = min(own, self.max_base_ms) if self.base_ms is None else self.base_ms
        return RetryPolicy(base_ms=base_ms, cap_ms=self.cap_ms, max_retry_after_ms=self.retry_after_ms)

    def to_wire(self) -> Retry:
        """The waits for the result; the first one only if it was asked for."""
        return _retry(base_ms=self.base_ms, cap_ms=self.cap_ms, retry_after_ms=self.retry_after_ms)


def retry_rules(ceilings: RetryCeilings, *asked: Retry | None) -> RetryRules:
    """What takes effect of what was asked for, the first that says something first, under the worker's ceilings."""

    given = [each for each in asked if each is not None]
    base_ms = next((each.base_ms for each in given if each.base_ms is not None), None)
    cap_ms = next((each.cap_ms for each in given if each.cap_ms is not None), defaults.RETRY["cap_ms"])
    after_ms = next(
        (each.retry_after_ms for each in given if each.retry_after_ms is not None), defaults.RETRY["retry_after_ms"]
    )
    return RetryRules(
        base_ms=None if base_ms is None else min(base_ms, ceilings.base_ms),
        cap_ms=min(cap_ms, ceilings.cap_ms),
        retry_after_ms=min(after_ms, ceilings.retry_after_ms),
        max_base_ms=ceilings.base_ms,
    )


MAX_LOST_WITH_OTHERS = 5
"""So often a run is tried again for free because its process died under several runs. After that each try counts: a
process that dies again and again is worth no endless loop."""


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
    policy: Callable[[ErrorCode], RetryPolicy],
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
