"""Records: key, headers and bytes at a position on Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a record lies."""

    topic: str
    """The topic's full name, with prefix."""
    partition: int
    """Partition number, from 0."""
    offset: int
    """Offset in the partition."""

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A record as it was read."""

    position: Position
    """Where it lies."""
    timestamp_ms: int
    """Kafka's timestamp: milliseconds since 1970, UTC."""
    key: bytes | None
    """The key's bytes; None where there is no key."""
    value: bytes | None
    """The value's bytes; None for a tombstone."""
    headers: Headers = ()
    """Headers as they were, duplicates included."""

    @property
    def size(self) -> int:
        """Bytes held in memory for it: key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


@dataclass(kw_only=True, slots=True)
class OutgoingRecord:
    """A record to be written to a given partition.

    Treat it as a value: it is only not frozen since each run makes five, and a frozen one takes 0.6 µs instead of 0.25.
    """

    topic: str
    """The topic's full name, with prefix."""
    partition: int
    """Everything that comes of a request goes to its request's partition number."""
    key: bytes | None
    """The key's bytes."""
    value: bytes | None
    """The value's bytes."""
    headers: Headers = ()
    """Headers, none written twice."""

    @property
    def size(self) -> int:
        """Bytes as a broker's `max.message.bytes` counts them, with a margin for the record's frame."""
        size = len(self.key or b"") + len(self.value or b"") + 100
        for name, value in self.headers:
            size += len(name) + len(value or b"") + 10
        return size
