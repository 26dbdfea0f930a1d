"""Runs that failed for want of a model: a wrong key, a model that is not there, an endpoint that nobody listens at.

The first ones fail as all will. They are held back instead of written down, until one ends otherwise: 61 failures that
say nothing but "no key" would else be finished runs, which nobody plays again once the key is mended.
"""

from typing import Final

from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.recordings import ReplayedRun

MOST: Final = 5
"""So many in a row, none before them: then it is no single run's fault."""
_CODES: Final = frozenset({ErrorCode.PROVIDER_AUTH, ErrorCode.MODEL_UNAVAILABLE, ErrorCode.PROVIDER_ERROR})


class Refusals:
    """Those at the beginning of a replay, or of the part that goes on with it."""

    def __init__(self, *, possible: bool) -> None:
        """`possible`: whether models are asked at all; frozen runs fail as they were recorded."""
        self._possible = possible
        self._held: list[ReplayedRun] = []

    @property
    def held(self) -> int:
        """How many are held back."""
        return len(self._held)

    @property
    def all_were(self) -> bool:
        """Whether so many were refused, and none was not, that it makes no sense to go on."""
        return self._possible and len(self._held) >= MOST

    @property
    def why(self) -> str:
        """What they were told, in words. Only while some are held."""
        error = self._held[0].result.error
        assert error is not None
        return f"the first {len(self._held)} runs, which all failed ({error.code.value}: {error.detail})"

    def passed(self, run: ReplayedRun) -> tuple[ReplayedRun, ...]:
        """One more run has ended. Returns what may be written down now: all that is held, and it, or nothing."""
        error = run.result.error
        if not self._possible or error is None or error.code not in _CODES:
            if not self.all_were:
                self._possible = False
                return (*self.released(), run)
            return (run,)
        self._held.append(run)
        return ()

    def released(self) -> tuple[ReplayedRun, ...]:
        """Those that are held, and are no longer."""
        held, self._held = tuple(self._held), []
        return held
