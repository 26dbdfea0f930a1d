"""A request that is on its way, as its caller holds it."""

from dataclasses import dataclass

from agentstream.producers.requests import Submitted


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedRun(Submitted):
    """A request that the brokers hold, with what it takes to wait for its result later, even in another process."""

    results_from: int
    """The result lies at this offset of the results topic or behind it, in the request's partition number."""
    deltas_from: int | None
    """The same for the delta topic; None if nobody had asked for deltas."""
    body_hash: str | None = None
    """Hash of the request's body if its caller chose the run id: it may have run before, and its result lie further
    back. None: the id was made up for it."""
