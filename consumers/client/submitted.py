"""A request that is on its way, as its caller holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

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

    @classmethod
    def of(
        cls,
        sent: Submitted,
        results: Mapping[int, int],
        deltas: Mapping[int, int] | None,
        body_hash: str | None,
    ) -> Self:
        """What was sent, with the positions of results and of deltas, by partition, that were asked for before."""
        number = sent.position.partition
        return cls(
            run_id=sent.run_id,
            session_id=sent.session_id,
            position=sent.position,
            trace=sent.trace,
            # A partition that was unknown a moment ago is new: everything on it came later.
            results_from=results.get(number, 0),
            deltas_from=None if deltas is None else deltas.get(number, 0),
            body_hash=body_hash,
        )
