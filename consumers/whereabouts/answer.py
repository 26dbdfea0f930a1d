"""What is known of where a run is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agentstream.schemas.records import Position

State = Literal["unread", "waiting", "running", "finished", "refused", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Whereabouts:
    """What is known of a run."""

    run_id: str
    """The run."""
    state: State
    """unread: no worker has seen it; waiting or running: one has; refused: a dead letter is all that came of it;
    unknown: it is not on the log."""
    session_id: str | None = None
    """Its session."""
    request: Position | None = None
    """Where its request lies."""
    result: Position | None = None
    """Where its result lies."""
    status: str | None = None
    """How it ended."""
    ahead: int | None = None
    """Open requests of its session before it, in its partition."""
    behind: str | None = None
    """The run directly before it in its session."""
    claim: int | None = None
    """The claim under which its partition is worked on, or it ran."""
    owner: str | None = None
    """The id of that claim's owner: one per assignment of a partition to a worker, as in the worker's log."""
    attempt: int | None = None
    """The attempt that its newest events belong to."""
    last_event: str | None = None
    """Its newest event."""
    last_event_at: datetime | None = None
    """When that happened."""
    dead_letter: Position | None = None
    """Where its dead letter lies."""
    error: str | None = None
    """The code it was refused with."""
    notes: tuple[str, ...] = ()
    """What limits this answer."""
