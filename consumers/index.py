"""The index of finished runs: what a new owner must know so that nothing runs twice."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agentstream.consumers.kafka import log_consumer, stop_consumer
from agentstream.consumers.ledger import ranges
from agentstream.producers.connection import KafkaConnection

WINDOW = 10_000
"""Finished runs remembered per partition; with an id of 36 characters about 2 MB of memory."""
READ_SECONDS = 60.0


class IndexUnreadableError(Exception):
    """The index could not be read now. Again."""


class IndexDamagedError(Exception):
    """The index holds what nobody can read: somebody must look at it. Without it requests might run twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedIndex:
    """What the log says about finished runs of one partition."""

    hashes: dict[str, str]
    """Body hash by run id, oldest first, the newest WINDOW of them."""
    done: list[range] = field(default_factory=list)
    """Offsets of all finished requests, ascending; only where asked for."""


async def load_index(
    connection: KafkaConnection, topic: str, partition: int, *, window: int = WINDOW, whole: bool = False
) -> LoadedIndex:
    """Read the last `window` lines of a partition of the index, or all of it with `whole`.

    Raises IndexUnreadableError, or IndexDamagedError where a batch cannot be read whoever tries.
    Call it after the partition's writer has started: then no transaction of the former owner is open, and the
    committed end of the log is its end.
    """
    consumer = log_consumer(connection)
    try:
        async with asyncio.timeout(READ_SECONDS):
            await consumer.start()
            where = TopicPartition(topic, partition)
            consumer.assign([where])
            begin = (await consumer.beginning_offsets([where]))[where]
            end = (await consumer.end_offsets([where]))[where]
            # Every transaction leaves a marker behind, so twice the window holds at least that many lines.
            consumer.seek(where, begin if whole else max(begin, end - 2 * window))
            hashes: dict[str, str] = {}
            done: list[int] = []
            while await consumer.position(where) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        offset = _remember(record.key, record.value, hashes)
                        if whole and offset is not None:
                            done.append(offset)
                    while len(hashes) > window:
                        del hashes[next(iter(hashes))]
                if (found := consumer.unreadable.get(where)) is not None:
                    raise IndexDamagedError(f"{topic}/{partition} cannot be read from {found.offset} on: {found.why}")
    except (KafkaError, OSError, TimeoutError) as error:
        raise IndexUnreadableError(f"the index {topic}/{partition} could not be read: {error!r}") from error
    finally:
        await stop_consumer(consumer)
    return LoadedIndex(hashes=hashes, done=ranges(done))


def _remember(key: bytes | None, value: bytes | None, hashes: dict[str, str]) -> int | None:
    """Enter one line. A line that is not ours (somebody else wrote to the topic) says nothing."""
    try:
        run_id = (key or b"").decode()
        line = json.loads(value or b"")
        offset, body_hash, rejected = int(line["offset"]), str(line["body_hash"]), line["status"] == "rejected"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if run_id and not rejected:
        hashes.pop(run_id, None)
        hashes[run_id] = body_hash
    return offset


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
