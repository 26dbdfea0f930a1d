"""Readers of the output topics: results and deltas for whoever wants to see them all, or from somewhere on.

    async with ResultReader(connection, start="beginning") as reader:
        async for found in reader:
            match found:
                case Read(value=InvokeResult() as result): …
                case Read(value=Problem() as problem): …       a record that is no result; reading goes on
                case Expired(): …                              records that were gone before they were read

They belong to no group and commit nothing, so that any number of them may look on.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Self, TypedDict, TypeVar, Unpack

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Expired, Tail
from agentstream.consumers.transcript import REMEMBERED_RUNS, Fresh, Transcripts
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import decode_events, decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.records import Record
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

POLL_SECONDS = 0.5
T = TypeVar("T")
Start = Literal["beginning", "end"] | datetime | Mapping[int, int]
"""Where to begin: at the ends of the log, with the first record since an instant, or at offsets by partition."""


class Stretch(TypedDict, total=False):
    """What part of a topic is read. See `TopicReader`."""

    start: Start
    partitions: Collection[int] | None
    until_end: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Read(Generic[T]):
    """A record and what it says."""

    record: Record
    """The record: its position, key, headers and bytes."""
    value: T | Problem
    """Its value, or why it has none."""


class TopicReader(Generic[T]):
    """Reads one topic to everybody's liking: no group, nothing committed. Opened and closed by `async with`.

    Entering fixes the positions: what is written afterwards will be read. Iterating never ends, unless `until_end` was
    asked for: then it ends at what was the log's end when the reader was entered. A broken record is a `Problem`,
    expired ones are an `Expired`; brokers that restart are waited for. Holds at most what one fetch brought.

    Entering raises TopicMissing, aiokafka's KafkaError, OSError or TimeoutError, and ValueError for a partition that
    does not exist; iterating raises only TopicAuthorizationFailedError.
    """

    read_committed = True
    """Whether records of open and aborted transactions stay unseen."""

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        decode: Callable[[Record], T | Problem],
        *,
        start: Start = "end",
        partitions: Collection[int] | None = None,
        until_end: bool = False,
    ) -> None:
        """`partitions`: None for all, or for those that `start` names."""
        self._tail = Tail(lambda: tail_consumer(connection, read_committed=self.read_committed), topic)
        self._decode = decode
        self._start = start
        self._partitions = partitions
        self._until_end = until_end
        self._ends: dict[int, int] = {}
        self._found: deque[Record | Expired] = deque()
        self._positions: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        await self._tail.open()
        try:
            existing = await self._tail.partitions()
            chosen = self._chosen(existing)
            self._ends = await self._tail.ends(chosen)
            self._positions = await self._first(chosen)
        except BaseException:
            await self._tail.close()
            raise
        self._tail.seek(self._positions)
        self._tail.resume()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tail.close()

    @property
    def positions(self) -> Mapping[int, int]:
        """The next offset of each partition: a reader that starts there goes on where this one stands."""
        return dict(self._positions)

    def __aiter__(self) -> AsyncIterator[Read[T] | Expired]:
        return self

    async def __anext__(self) -> Read[T] | Expired:
        while not self._found:
            if self._until_end and await self._at_end():
                raise StopAsyncIteration
            self._found.extend(await self._tail.poll(POLL_SECONDS))
        found = self._found.popleft()
        if isinstance(found, Expired):
            self._positions[found.partition] = found.resumed_at
            return found
        self._positions[found.position.partition] = found.position.offset + 1
        return Read(record=found, value=self._decode(found))

    async def _at_end(self) -> bool:
        reached = self._tail.positions
        if any(reached[number] < end for number, end in self._ends.items()):
            # The last thing on a transactional topic is a marker, which is no record: only the consumer has passed it.
            reached = await self._tail.reached()
        return all(reached[number] >= end for number, end in self._ends.items())

    def _chosen(self, existing: Collection[int]) -> list[int]:
        asked = self._partitions
        if asked is None:
            asked = self._start.keys() if isinstance(self._start, Mapping) else existing
        if not set(asked) <= set(existing):
            raise ValueError(f"the topic has the partitions {sorted(existing)}, asked for were {sorted(asked)}")
        return sorted(asked)

    async def _first(self, partitions: Collection[int]) -> dict[int, int]:
        start = self._start
        if isinstance(start, Mapping):
            return {number: start[number] for number in partitions}
        if isinstance(start, datetime):
            since = await self._tail.first_since(max(0, int(start.timestamp() * 1000)), partitions)
            return {number: since.get(number, self._ends[number]) for number in partitions}
        return dict(self._ends) if start == "end" else await self._tail.beginnings(partitions)


class ResultReader(TopicReader[InvokeResult]):
    """Reads results, committed ones only. See `TopicReader`."""

    def __init__(self, connection: KafkaConnection, topics: Topics | None = None, **stretch: Unpack[Stretch]) -> None:
        """`topics`: None for those with the default prefix."""
        super().__init__(connection, (topics or Topics()).assistant_messages, decode_result, **stretch)


class DeltaReader(TopicReader[StreamEvents]):
    """Reads stream deltas as they stand on the log, voided attempts and repetitions included. See `TopicReader`."""

    # Deltas never ride in a transaction; somebody else's open one must not hold them back.
    read_committed = False

    def __init__(self, connection: KafkaConnection, topics: Topics | None = None, **stretch: Unpack[Stretch]) -> None:
        """`topics`: None for those with the default prefix."""
        super().__init__(connection, (topics or Topics()).stream_deltas, decode_events, **stretch)

    async def fresh(self, *, remembered_runs: int = REMEMBERED_RUNS) -> AsyncIterator[tuple[StreamEvents, Fresh]]:
        """Only what counts, by the reader's rule: each record with those of its events that are new.

        Records that add nothing, are broken or have expired are left out; the events after a loss come with `gap`.
        """
        transcripts = Transcripts(limit=remembered_runs)
        async for found in self:
            if isinstance(found, Read) and isinstance(found.value, StreamEvents):
                fresh = transcripts.feed(found.value)
                if fresh.events:
                    yield found.value, fresh
