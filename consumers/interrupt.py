"""How a worker ends one run from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agentstream.consumers.pump import Bell


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """Someone asked for the run to end."""

    reason: str | None = None
    """One line for the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """The worker shuts down; the run is delivered again."""


class Interrupt:
    """The handle by which a worker ends one run from outside. Plain and synchronous; the first call wins."""

    def __init__(self) -> None:
        self._requested: Cancelled | Drained | None = None
        self._bell: Bell | None = None

    @property
    def requested(self) -> Cancelled | Drained | None:
        """What was asked for, if anything."""
        return self._requested

    def drain(self) -> None:
        """The worker shuts down: end with `run.retrying` (draining) and no result. A run that ended stays as it is."""
        self._request(Drained())

    def cancel(self, reason: str | None = None) -> None:
        """Someone asked for it: end with a `cancelled` result."""
        self._request(Cancelled(reason=reason))

    @contextmanager
    def ringing(self, bell: Bell) -> Iterator[None]:
        """Within, a call rings this bell."""
        self._bell = bell
        try:
            yield
        finally:
            self._bell = None

    def _request(self, what: Cancelled | Drained) -> None:
        if self._requested is None:
            self._requested = what
            if self._bell is not None:
                self._bell.ring()
