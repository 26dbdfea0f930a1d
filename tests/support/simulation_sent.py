"""What callers send to a simulated partition, and what may become of the transactions for it."""

from dataclasses import dataclass
from enum import Enum, auto

from agentstream.schemas.records import Record


class Kind(Enum):
    """What a request makes its run do, or what is wrong with it."""

    FINISHES = auto()
    FAILS = auto()
    FAILS_TWICE = auto()
    KILLS = auto()
    """Its worker."""
    REPEATS = auto()
    """An earlier request, byte by byte."""
    CONFLICTS = auto()
    """It has an earlier request's id and another body."""
    UNREADABLE = auto()
    INVALID = auto()
    """But it names its run."""


class Fault(Enum):
    """What becomes of one transaction."""

    LOST = auto()
    """Its owner is left in doubt, and it was not committed."""
    APPLIED = auto()
    """Its owner is left in doubt, and it was committed."""
    LATE = auto()
    """Its owner is left in doubt, and it is committed a second later unless somebody fenced its producer."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Sent:
    """One request as its caller knows it."""

    kind: Kind
    run_id: str
    session: str
    seconds: float
    """How long its run takes."""
    record: Record

    def __repr__(self) -> str:
        return f"{self.run_id} ({self.kind.name}, {self.session})"

    @property
    def offset(self) -> int:
        return self.record.position.offset

    @property
    def runs(self) -> bool:
        return self.kind in (Kind.FINISHES, Kind.FAILS, Kind.FAILS_TWICE, Kind.KILLS)
