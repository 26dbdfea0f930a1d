"""What waits for the delta topic: what is known of each attempt, and one queue for each partition. No I/O."""

from asyncio import Future, Task
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from agentstream.schemas.headers import DeltaHeaders


class Batch(Protocol):
    """What aiokafka's producer sends as one."""

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> object | None:
        """Add a record; None if it does not go in any more."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One attempt's events on their way: what their records have in common, and how they fare."""

    id: str
    """The attempt's uuid7."""
    queue: "DeltaQueue"
    """Where they go."""
    key: bytes
    """Each record's key."""
    headers: DeltaHeaders
    """Each record's headers."""
    frame_bytes: int
    """Bytes that a record takes beside its value."""
    waiting: int = 0
    """Records that are not acknowledged."""
    acked_seq: int = -1
    """`seq` of the last event acknowledged; there is no gap below it, since a partition's batches go one by one."""
    broken: bool = False
    """Nobody waits for what is left of it, and nothing more is taken."""
    cut_at: int | None = None
    """`last_seq` of a record that was refused: nothing from there on is sent, a gap would be worse."""
    settled: "Future[None] | None" = None
    """What `settle` waits for."""

    def give_up(self) -> None:
        """Nobody need wait for what is left of it."""
        self.broken = True
        self.settle()

    def settle(self) -> None:
        """Let `settled` be done."""
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(None)


@dataclass(eq=False, slots=True)
class Pending:
    """One record on its way."""

    attempt: Attempt
    """The attempt whose events they are."""
    value: bytes
    """The events."""
    first_seq: int
    """`seq` of the first."""
    last_seq: int
    """`seq` of the last."""
    size: int
    """Bytes it holds."""
    queued_at: float
    """On the loop's clock."""
    suspect: bool = False
    """Its batch was refused: sent again, it goes alone."""


@dataclass(eq=False, slots=True)
class DeltaQueue:
    """What waits for one partition. It goes in order, one batch at a time."""

    topic: str
    """The topic's full name."""
    partition: int
    """Partition number."""
    waiting: deque[Pending] = field(default_factory=deque)
    """What is in no batch yet."""
    batch: list[Pending] = field(default_factory=list)
    """What is under way."""
    held_bytes: int = 0
    """Of what waits and what is under way."""
    sending: "Task[None] | None" = None
    """Lives as long as there is something to send."""

    def fill(self, builder: Batch) -> int:
        """Take what is next into a batch, as far as it goes in; return how many bytes were dropped instead."""
        waiting, batch, dropped = self.waiting, self.batch, 0
        while waiting:
            pending = waiting[0]
            attempt = pending.attempt
            if attempt.cut_at is not None and pending.last_seq >= attempt.cut_at:
                dropped += waiting.popleft().size
                continue
            headers = attempt.headers.of(pending.first_seq)
            if builder.append(timestamp=None, key=attempt.key, value=pending.value, headers=headers) is None:
                break
            batch.append(waiting.popleft())
            if pending.suspect:  # And so was all that stood before it, since a refused batch is put back in front.
                break
        return dropped

    def acknowledged(self) -> list[Pending]:
        """The brokers have the batch: return what was in it."""
        batch, self.batch = self.batch, []
        for pending in batch:
            attempt = pending.attempt
            attempt.acked_seq = pending.last_seq
            attempt.waiting -= 1
            if not attempt.waiting:
                attempt.settle()
        return batch

    def refused(self) -> Pending | None:
        """The brokers refused the batch as too large: if one record was alone in it, end its attempt and return it.

        Else each goes alone the next time: other runs must not suffer for it.
        """
        if len(self.batch) == 1:
            culprit = self.batch.pop()
            culprit.attempt.cut_at = culprit.last_seq
            culprit.attempt.give_up()
            return culprit
        for pending in self.batch:
            pending.suspect = True
        return None

    def put_back(self) -> None:
        """The batch was not acknowledged: it goes again, before all else."""
        self.waiting.extendleft(reversed(self.batch))
        self.batch = []
