"""Dead letters for operators: which of them, and reading them.

DeadLetters.read(Selection, start) -> DeadLetter …, Problem for a record of another program, Expired
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers import Expired, Read, TopicReader
from agentstream.consumers.readers.by_time import by_time
from agentstream.consumers.readers.tail import Tail, TopicMissing
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.dead_letters import DeadLetter, decode_dead_letter
from agentstream.schemas.headers import header_text, last_wins
from agentstream.schemas.records import Position, Record


class NoSuchPartition(Exception):
    """The topic has no partition of this number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which dead letters are meant: those for which everything holds that is given."""

    codes: frozenset[str] = frozenset()
    """One of these error codes; empty: any."""
    session: str | None = None
    """The session."""
    since: datetime | None = None
    """Written at this instant or later."""
    until: datetime | None = None
    """Written before this instant."""
    headers: tuple[tuple[str, str], ...] = ()
    """These headers with these values, the record's own or those of its reason."""
    partition: int | None = None
    """In this partition."""
    offset: int | None = None
    """At this offset of the dead-letter topic."""

    def holds(self, letter: DeadLetter, record: Record) -> bool:
        """Whether it is meant. `record`: the dead letter as it lies on its topic."""
        present = last_wins(record.headers)
        return (
            (not self.codes or letter.code in self.codes)
            and (self.since is None or record.timestamp_ms >= self.since.timestamp() * 1000)
            and (self.until is None or record.timestamp_ms < self.until.timestamp() * 1000)
            and self.partition in (None, record.position.partition)
            and self.offset in (None, record.position.offset)
            and all(header_text(present, name) == value for name, value in self.headers)
            and (self.session is None or letter.session_id == self.session)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """A partition of the topic as it is now."""

    first: int
    """The lowest offset to look at."""
    end: int
    """The offset after the last record to look at."""
    log_end: int
    """The offset after the last record there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A record of the topic that is within the selection's partitions and times."""

    record: Record
    """As it lies there."""
    letter: DeadLetter | None
    """The dead letter if it is meant; None for others."""
    broken: str | None = None
    """Why it is no dead letter at all."""


class DeadLetters:
    """The dead letters of one topic. Nothing to close."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._connection = connection
        self.topic = topic

    async def bounds(self, selection: Selection) -> dict[int, Bounds]:
        """What there is to look at. Raises NoSuchPartition, or as `TopicReader`."""
        tail = Tail(lambda: tail_consumer(self._connection, read_committed=True), self.topic)
        await tail.open()
        try:
            partitions = await tail.partitions()
            if selection.partition is not None:
                if selection.partition not in partitions:
                    raise NoSuchPartition(f"{self.topic} has the partitions 0 to {max(partitions)}")
                partitions = (selection.partition,)
            ends, first = await tail.ends(partitions), await tail.beginnings(partitions)
            if selection.since is not None:
                found = await tail.first_since(_ms(selection.since), partitions)
                first = {number: max(first[number], found.get(number, ends[number])) for number in partitions}
            until = dict(ends)
            if selection.until is not None:
                until |= await tail.first_since(_ms(selection.until), partitions)
        finally:
            await tail.close()
        if selection.offset is not None:
            first = {number: max(offset, selection.offset) for number, offset in first.items()}
        return {number: Bounds(first=first[number], end=until[number], log_end=ends[number]) for number in partitions}

    async def read(
        self, selection: Selection, start: Mapping[int, int] | None = None
    ) -> AsyncGenerator[Found | Expired, None]:
        """Everything up to the topic's end as it is now, oldest first: by timestamp, in a partition by offset.

        `start`: offsets by partition; None: where `bounds` begin.
        """
        if start is None:
            start = {number: bounds.first for number, bounds in (await self.bounds(selection)).items()}
        tail = Tail(lambda: tail_consumer(self._connection, read_committed=True), self.topic)
        await tail.open()
        try:
            async with aclosing(by_time(tail, start, await tail.ends(start))) as records:
                async for found in records:
                    if isinstance(found, Expired):
                        yield found
                        continue
                    if selection.offset is not None and found.position.offset > selection.offset:
                        return
                    yield _found(found, selection)
        finally:
            await tail.close()

    async def original(self, letter: DeadLetter) -> Record | None:
        """The record of a dead letter: its own copy, or for a truncated one what its coordinates lead to.

        None if that is gone, or is not the record any more: a topic made anew has other records at the same offsets.
        """
        if letter.truncated is None:
            return letter.record
        record = await self._at(letter.record.position)
        same = record is not None and record.size == letter.truncated and letter.record.key in (None, record.key)
        return record if same else None

    async def _at(self, position: Position) -> Record | None:
        start = {position.partition: position.offset}
        try:
            async with TopicReader(self._connection, position.topic, _itself, start=start, until_end=True) as reader:
                async for found in reader:
                    here = isinstance(found, Read) and found.record.position == position
                    return found.record if here and isinstance(found, Read) else None
        except (TopicMissing, ValueError):
            pass  # the topic is gone, or has fewer partitions: then so is the record
        return None


def _found(record: Record, selection: Selection) -> Found:
    letter = decode_dead_letter(record)
    if not isinstance(letter, DeadLetter):
        return Found(record=record, letter=None, broken=letter.detail)
    return Found(record=record, letter=letter if selection.holds(letter, record) else None)


def _ms(instant: datetime) -> int:
    return max(0, int(instant.timestamp() * 1000))


def _itself(record: Record) -> Record:
    return record


def written_at(letter: DeadLetter) -> str:
    """When a dead letter was written, RFC 3339."""
    try:
        return datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(letter.timestamp_ms)
