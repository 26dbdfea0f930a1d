"""One look at the topics: how much of them is read, and what that left out."""

from collections.abc import Callable
from dataclasses import dataclass, field

from agentstream.consumers.log_scan import LogScan
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What one search for one run reads with."""

    connection: KafkaConnection
    """The cluster."""
    topics: Topics
    """The topics."""
    last: int
    """So many records of each partition of a topic are looked at, at most."""
    progress: Callable[[str], None]
    """Is given a line every two seconds."""
    notes: list[str] = field(default_factory=list)
    """What limits the answer, as it turns up."""

    def scan(self, topic: str, *, committed: bool = True) -> LogScan:
        """One topic, not open."""
        return LogScan(self.connection, topic, last=self.last, progress=self.progress, committed=committed)

    async def first_since(
        self, since_ms: int, topic: str, partition: int, is_it: Callable[[Record], bool]
    ) -> Record | None:
        """The first record of a partition that is it and was written at that instant or later."""
        async with self.scan(topic) as scan:
            found, _ = await scan.first(await scan.since(since_ms, partition), is_it)
        return found
