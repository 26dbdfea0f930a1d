"""What is to be sent again, and where to."""

from dataclasses import dataclass

from agentstream.consumers.dead_letters import Selection
from agentstream.producers.connection import KafkaConnection


@dataclass(frozen=True, kw_only=True, slots=True)
class RedrivePlan:
    """What is to be sent again, and where to."""

    connection: KafkaConnection
    """The cluster."""
    dead_letters: str
    """The topic of dead letters."""
    to: str
    """The topic to send them to."""
    group_id: str
    """Under which progress is kept; also the transactional id."""
    selection: Selection
    """Which ones."""
    max_count: int | None = None
    """Send so many at most; None: all."""
    max_redrives: int = 3
    """One that was sent again so often and died again is refused."""
    batch: int = 100
    """Dead letters per transaction."""
    max_record_bytes: int
    """Largest record."""
    dry_run: bool = False
    """Whether to look only."""
