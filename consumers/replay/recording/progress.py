"""How far a capture has come."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One step of a capture as it stands."""

    step: str
    """requests, results, events (offsets of a topic), or runs (those of the recording)."""
    done: int
    """How many are done, those before a resume included."""
    total: int
    """How many there are, or at most are."""
    since_begin: int
    """How many are done since this process began the step: what a rate is made of."""
    runs: int
    """Runs that are meant, as far as is known."""
