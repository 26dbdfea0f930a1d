"""The index of finished runs: what a new owner must know so that nothing runs twice."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agentstream.consumers.kafka import Consumer, log_consumer, stop_consumer
from agentstream.consumers.ledger import ranges
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import body_hash

WINDOW = 10_000
"""Finished runs remembered per partition: 250 bytes each with an id of 36 characters, 2.4 MiB in all. A worker process
that loads eight full windows is 50 MiB larger than one that loads none (`make bench`)."""
READ_SECONDS = 60.0
SAMPLE = 50
"""So many of the oldest requests are compared with what the index says of their offsets."""


class IndexUnreadableError(Exception):
    """The index could not be read now. Again."""


class IndexDamagedError(Exception):
    """The index cannot be relied upon: somebody must look at it. Without it requests might run twice, and with one of
    another log they might never run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedIndex:
    """What the log says about finished runs of one partition."""

    hashes: dict[str, str]
    """Body hash by run id, oldest first, the newest WINDOW of them."""
    done: list[range] = field(default_factory=list)
    """Offsets of all finished requests, ascending; only where asked for."""


async def load_index(
    connection: KafkaConnection,
    topic: str,
    partition: int,
    *,
    window: int = WINDOW,
    whole: bool = False,
    requests: str | None = None,
) -> LoadedIndex:
    """Read the last `window` lines of a partition of the index, or all of it with `whole`.

    Raises IndexUnreadableError, or IndexDamagedError where a batch cannot be read whoever tries, or where the whole
    index speaks of other requests than `requests`, the input topic, has at their offsets.
    Call it after the partition's writer has started: then no transaction of the former owner is open, and the
    committed end of the log is its end.
    """
    consumer = log_consumer(connection)
    try:
        async with asyncio.timeout(READ_SECONDS):
            await consumer.start()
            where = TopicPartition(topic, partition)
            sample = await _first_requests(consumer, requests, partition) if whole and requests else {}
            consumer.assign([where])
            begin = (await consumer.beginning_offsets([where]))[where]
            end = (await consumer.end_offsets([where]))[where]
            # Every transaction leaves a marker behind, so twice the window holds at least that many lines.
            consumer.seek(where, begin if whole else max(begin, end - 2 * window))
            lines = _Lines(window=window, whole=whole)
            while await consumer.position(where) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    lines.take(records)
                if (found := consumer.unreadable.get(where)) is not None:
                    raise IndexDamagedError(f"{topic}/{partition} cannot be read from {found.offset} on: {found.why}")
    except (KafkaError, OSError, TimeoutError) as error:
        raise IndexUnreadableError(f"the index {topic}/{partition} could not be read: {error!r}") from error
    finally:
        await stop_consumer(consumer)
    for offset, hashed in sample.items():
        if lines.by_offset.get(offset, hashed) != hashed:
            raise IndexDamagedError(
                f"the index {topic}/{partition} knows another request at offset {offset} than {requests} has there: was"
                " the topic made anew? Make the index of finished runs anew as well"
            )
    return LoadedIndex(hashes=lines.hashes, done=ranges(lines.by_offset))


class _Lines:
    """What was read so far."""

    def __init__(self, *, window: int, whole: bool) -> None:
        self._window = window
        self._whole = whole
        self.hashes: dict[str, str] = {}
        self.by_offset: dict[int, str] = {}
        """Body hashes by request offset, if the whole index is read."""

    def take(self, records: Iterable[Any]) -> None:
        for record in records:
            line = _remember(record.key, record.value, self.hashes)
            if self._whole and line is not None:
                self.by_offset[line[0]] = line[1]
        while len(self.hashes) > self._window:
            del self.hashes[next(iter(self.hashes))]


async def _first_requests(consumer: Consumer, topic: str, partition: int) -> dict[int, str]:
    """Body hashes of the oldest requests on the log, by offset.

    The index knows finished requests by their offsets alone. Of an input that was made anew under an index that was
    not, as many new requests as there were old ones counted as finished, and nobody ever heard of them.
    """
    where = TopicPartition(topic, partition)
    consumer.assign([where])
    end = (await consumer.end_offsets([where]))[where]
    await consumer.seek_to_beginning(where)
    found: dict[int, str] = {}
    while len(found) < SAMPLE and await consumer.position(where) < end and where not in consumer.unreadable:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            found |= {record.offset: body_hash(record.value) for record in records}
    return found


def _remember(key: bytes | None, value: bytes | None, hashes: dict[str, str]) -> tuple[int, str] | None:
    """Enter one line; gives its offset and body hash. A line that is not ours (somebody else wrote it) says nothing."""
    try:
        run_id = (key or b"").decode()
        line = json.loads(value or b"")
        offset, hashed, rejected = int(line["offset"]), str(line["body_hash"]), line["status"] == "rejected"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if run_id and not rejected:
        hashes.pop(run_id, None)
        hashes[run_id] = hashed
    return offset, hashed


class KnownRuns:
    """Run ids of one partition: those in flight, and the window of finished ones. Pure."""

    def __init__(self, finished: Iterable[tuple[str, str]] = (), *, window: int = WINDOW) -> None:
        self._finished: OrderedDict[str, str] = OrderedDict(finished)
        self._running: dict[str, str] = {}
        self._window = window

    def seen(self, run_id: str) -> str | None:
        """The body hash under which this run id is known, or None."""
        return self._running.get(run_id) or self._finished.get(run_id)

    def begin(self, run_id: str, body_hash: str) -> None:
        """The run was admitted."""
        self._running[run_id] = body_hash

    def finish(self, run_id: str) -> None:
        """Its result was committed."""
        body_hash = self._running.pop(run_id, None)
        if body_hash is None:
            return
        self._finished[run_id] = body_hash
        while len(self._finished) > self._window:
            self._finished.popitem(last=False)
