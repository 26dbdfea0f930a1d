"""The index of finished runs as a client asks it: which run ids ended before, as far back as workers remember them.

await FinishedRuns(connection, topics).find(partition, run_id, offset) -> Finished | None
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from pydantic import ValidationError

from agentstream.consumers.client.errors import in_words
from agentstream.consumers.client.outage import Hears
from agentstream.consumers.index import WINDOW
from agentstream.consumers.kafka import STOP_SECONDS
from agentstream.consumers.log_scan import LogScan
from agentstream.consumers.readers.tail import TopicMissing
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.headers import REQUEST, header_text, last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import FinishedRun
from agentstream.schemas.topics import Topics

LOOKED_BACK = 2 * WINDOW
"""So many offsets of a partition are read, as by a worker that takes it over: each transaction leaves a marker behind.
With lines of 300 bytes about 3 MB, once per partition and client; later looks read what is new."""
MISSING_SECONDS = 60.0
"""An index that does not exist, or that this caller may not read, is asked for again after so long."""
SLACKS_MS = (1_000, 120_000)
"""A result and its line are sent within one transaction, as a rule within a millisecond and at most 60 s apart."""
NO_BOUND = 2**62
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A run that ended, or a request that was refused for its run id."""

    line: FinishedRun
    """What the index says of it."""
    partition: int
    """Its partition."""
    timestamp_ms: int
    """When that was written."""


class FinishedRuns:
    """Reads the index on demand. Opens what it needs by itself, `close` ends it; for concurrent use.

    Keeps 140 bytes of memory for each of the newest WINDOW lines of a partition: 1.4 MB.
    """

    def __init__(self, connection: KafkaConnection, topics: Topics, *, hears: Hears = nullcontext) -> None:
        """`hears`: see `Outage`."""
        self._hears = hears
        self._connection = connection
        self._topics = topics
        self._scan: LogScan | None = None
        self._asking = asyncio.Lock()
        self._lines: dict[int, OrderedDict[int, int]] = {}
        self._next: dict[int, int] = {}
        self._read_at: dict[int, float] = {}
        self._missing_until = float("-inf")
        self._at_work: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """End what is under way and the connection, in bounded time."""
        if tasks := set(self._at_work):
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
        await self._disconnect()

    async def find(self, partition: int, run_id: str, offset: int) -> Finished | None:
        """How a run ended, or that the request at `offset` of the input was refused for its id.

        Raises TopicMissing where the index cannot be read at all, and KafkaError, OSError or TimeoutError.
        """
        return await self._to_its_end(self._find(partition, run_id, offset))

    async def result_of(self, found: Finished) -> Record | None:
        """The record of a finished run's result; None if it is no longer on the log. Raises as `find`."""
        return await self._to_its_end(self._result_of(found))

    async def _to_its_end(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Most callers have their result, and leave, while we still connect: aiokafka, cancelled there, leaves a socket
        open."""
        with self._hears():
            task = asyncio.create_task(work, name="look at finished runs")
        self._at_work.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._at_work.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it

    async def _disconnect(self) -> None:
        scan, self._scan = self._scan, None
        if scan is not None:
            await scan.__aexit__()

    async def _find(self, partition: int, run_id: str, offset: int) -> Finished | None:
        asked_at = _now()
        async with self._asking:
            if asked_at < self._missing_until:
                raise TopicMissing(f"no such topic, or not allowed to read it: {self._topics.finished_runs}")
            try:
                scan = await self._opened()
                if self._read_at.get(partition, float("-inf")) <= asked_at:
                    await self._read_on(scan, partition)
                for name in (_refused(offset), run_id):
                    if (found := await self._line(scan, partition, name)) is not None:
                        return found
            except (TopicMissing, TopicAuthorizationFailedError) as error:
                self._missing_until = _now() + MISSING_SECONDS
                await self._disconnect()
                raise TopicMissing(f"not to be read: {in_words(error)}") from error
            except (KafkaError, OSError, TimeoutError):
                await self._disconnect()
                raise
        return None

    async def _result_of(self, found: Finished) -> Record | None:
        asked = Position(topic=self._topics.invoke_requests, partition=found.partition, offset=found.line.offset)
        async with self._scan_of(self._topics.assistant_messages, last=NO_BOUND) as scan:
            for slack in SLACKS_MS:
                hits: list[Record] = []

                def seen(record: Record, until: int = found.timestamp_ms + slack, hits: list[Record] = hits) -> bool:
                    if header_text(last_wins(record.headers), REQUEST) == str(asked):
                        hits.append(record)
                    return bool(hits) or record.timestamp_ms > until

                await scan.run(await scan.since(found.timestamp_ms - slack, found.partition), seen)
                if hits:
                    return hits[0]
        return None

    async def _opened(self) -> LogScan:
        if self._scan is None:
            self._scan = await self._scan_of(self._topics.finished_runs, last=LOOKED_BACK).__aenter__()
        return self._scan

    def _scan_of(self, topic: str, *, last: int) -> LogScan:
        return LogScan(self._connection, topic, last=last, progress=lambda _: None, committed=True)

    async def _read_on(self, scan: LogScan, partition: int) -> None:
        """Read what came since the last time, in the first place as far back as a worker would."""
        began = _now()
        lines = self._lines.setdefault(partition, OrderedDict())

        def seen(record: Record) -> bool:
            if (name := _name(record)) is not None:
                lines[_short(name)] = record.position.offset
                lines.move_to_end(_short(name))
            while len(lines) > WINDOW:
                lines.popitem(last=False)
            self._next[partition] = record.position.offset + 1
            return False

        scanned = await scan.run({partition: self._next.get(partition, 0)}, seen)
        if scanned.ends[partition] < self._next.get(partition, 0):
            # The topic was made anew: what was remembered is of another log.
            lines.clear()
            del self._next[partition]
            await scan.run({partition: 0}, seen)
        self._read_at[partition] = began

    async def _line(self, scan: LogScan, partition: int, name: str) -> Finished | None:
        offset = self._lines[partition].get(_short(name))
        if offset is None:
            return None
        record, _ = await scan.first({partition: offset}, lambda record: record.position.offset >= offset)
        line = None if record is None or _name(record) != name else _line_of(record)
        if record is None or line is None:
            return None
        return Finished(line=line, partition=partition, timestamp_ms=record.timestamp_ms)


def _name(record: Record) -> str | None:
    """What a line is found by: the run's id, or the offset of a request that was refused without a result."""
    if b'"rejected"' not in (record.value or b""):
        return (record.key or b"").decode(errors="replace")
    # Read only where it must be: 20,000 lines are read before a caller's first look is over.
    line = _line_of(record)
    return _refused(line.offset) if line is not None and line.status == "rejected" else None


def _line_of(record: Record) -> FinishedRun | None:
    try:
        return FinishedRun.model_validate_json(record.value or b"")
    except ValidationError:
        return None


def _refused(offset: int) -> str:
    return f"@{offset}"  # no run id holds an @


def _short(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest())


def _now() -> float:
    return asyncio.get_running_loop().time()
