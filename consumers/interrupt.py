"""How a worker ends one run from outside."""

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
        self.bell = Bell()
        """Rung by a call. Whatever else the run waits for rings it too."""
        self._requested: Cancelled | Drained | None = None

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

    def _request(self, what: Cancelled | Drained) -> None:
        if self._requested is None:
            self._requested = what
            self.bell.ring()
