"""Everything between an admitted request and its numbered events and result.

    Runs.execute(Admitted, Interrupt) -> StreamEvents …, one InvokeResult
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from agentstream.consumers.agent_config import EffectiveParameters
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.records import Position
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """A request that may run, with all that is known about it."""

    request: InvokeRequest
    """The request; `id` and `session_id` are filled."""
    position: Position
    """Where its record lies."""
    timestamp_ms: int
    """The record's timestamp, ms since 1970."""
    trace: TraceContext
    """Parent of all that happens."""
    claim: int
    """The claim under which it runs."""
    parameters: EffectiveParameters
    """What it runs with."""
    attempt: int = 1
    """Number of the first attempt."""
    crashes: int = 0
    """Attempts lost with a worker (strikes)."""
    redrive_of: str | None = None
    """The run that this one was sent again for."""


class Interrupt:
    """The handle by which a worker ends one run from outside. Plain and synchronous; the first call wins."""

    def drain(self) -> None:
        """The worker shuts down: end with `run.retrying` (draining) and no result. Nothing happens to a run that ended."""
        raise NotImplementedError

    def cancel(self, reason: str | None = None) -> None:
        """Someone asked for it: end with a `cancelled` result."""
        raise NotImplementedError


class Runs:
    """Runs admitted requests through their harnesses. One per worker, used by all lanes at once; nothing to close."""

    def __init__(
        self,
        harnesses: Mapping[str, Harness],
        *,
        redactor: Redactor,
        rng: Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`harnesses` by kind, open. `now` is the wall clock; monotonic time is the running loop's `time()`."""
        raise NotImplementedError

    @property
    def abandoned(self) -> int:
        """Harness runs, alive now, that did not end within two seconds of their cancellation."""
        raise NotImplementedError

    def execute(
        self, admitted: Admitted, interrupt: Interrupt | None = None
    ) -> AsyncIterator[StreamEvents | InvokeResult]:
        """Run it: events first, then exactly one InvokeResult, the last thing yielded.

        Exactly one result, whatever the agent does; only a drained run ends without. The result's `last_seq` is the
        last numbered event's and its `deltas` says `complete`: the caller, who publishes them, knows better and
        copies the result with what it knows. Events are filtered, merged, redacted and numbered, and each record fits
        the delta topic. Raises only for our own bugs, or CancelledError; cancelled or closed, nothing more is yielded
        and the harness is cancelled.
        """
        raise NotImplementedError
