"""What a redrive tells: what it does about each dead letter, and what that came to."""

from dataclasses import dataclass, fields

from agentstream.schemas.dead_letters import DeadLetter


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is done about one dead letter that is meant."""

    letter: DeadLetter
    """The dead letter."""
    run_id: str | None
    """The run it will be; None if it is refused."""
    why_not: str | None = None
    """Why it is refused."""


@dataclass(kw_only=True, slots=True)
class Counts:
    """What became of the records looked at."""

    looked_at: int = 0
    """Records of the dead-letter topic."""
    sent: int = 0
    """Sent again."""
    looping: int = 0
    """Refused: sent again too often already."""
    lost: int = 0
    """Truncated, and the original record is gone."""
    too_large: int = 0
    """Refused by the brokers for its size."""
    broken: int = 0
    """Records that are no dead letters."""
    expired: int = 0
    """Offsets that were gone before they were read."""

    def add(self, other: "Counts") -> None:
        """Add what a batch came to."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def refused(self) -> int:
        """Dead letters that were meant and could not be sent."""
        return self.looping + self.lost + self.too_large
