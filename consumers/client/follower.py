"""One consumer for everybody in a client who waits on one topic. Records are handed out by run id.

While somebody waits it reads all partitions, whoever's the runs are: a broker answers a fetch that finds nothing only
after 500 ms, so a partition added to those being read would be late by as much. When nobody waits it reads nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from agentstream.consumers.client.errors import BrokerUnavailable, TopicsMissing, in_words
from agentstream.consumers.client.outage import Hears
from agentstream.consumers.readers.tail import Expired, Tail, TopicMissing
from agentstream.schemas.codec import decode_events, decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)

LINGER_SECONDS = 10.0
"""It goes on reading for so long when nobody waits any more: the next caller then needs no look-up."""
FRESH_SECONDS = 1.0
"""For so long ends once looked up serve as positions: at worst a second's records are read for nothing."""
POLL_SECONDS = 0.5
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False, slots=True)
class Listener:
    """Somebody who waits for records of one run. Neither function may raise."""

    take: Callable[[Record], None]
    """Is given each record of the run, some of them repeatedly."""
    fail: Callable[[Exception], None]
    """Is told that no more will come."""


class Follower:
    """Follows one topic for many listeners. `close` ends it; everything else opens it as needed."""

    def __init__(
        self,
        tail: Tail,
        *,
        also_needed: Collection[str],
        run_id_of: Callable[[Record], str | None],
        hears: Hears = nullcontext,
    ) -> None:
        """`run_id_of` is asked for records without the header that names their run. `hears`: see `Outage`."""
        self._hears = hears
        self._tail = tail
        self._also_needed = also_needed
        self._run_id_of = run_id_of
        self._listeners: dict[str, list[Listener]] = {}
        self._asking = asyncio.Lock()
        self._opened = False
        self.reading = False
        """Whether it reads now: from the first listener until 10 s after the last one."""
        self._wanted = asyncio.Event()
        self._quiet_since = 0.0
        self._ends: dict[int, int] = {}
        self._ends_at = float("-inf")
        self._broken: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def positions(self) -> Mapping[int, int]:
        """Offsets below everything that is written after this returns. Raises TopicsMissing or BrokerUnavailable."""
        if self._broken is not None:
            raise self._broken
        async with self._asking:
            if self._outdated():
                asked_at = _now()
                with self._hears():
                    self._ends = await self._asked()
                self._ends_at = asked_at
        return dict(self._tail.positions if self.reading else self._ends)

    @asynccontextmanager
    async def listening(self, run_id: str, listener: Listener) -> AsyncIterator[Mapping[int, int]]:
        """Inside it the listener gets all records of the run that lie behind the positions. Raises as `positions`."""
        positions = await self.positions()
        self._listeners.setdefault(run_id, []).append(listener)
        if not self.reading:
            self.reading = True
            self._tail.seek(positions)
            self._tail.resume()
            self._wanted.set()
        if self._task is None:
            with self._hears():
                self._task = asyncio.create_task(self._follow(), name="agent-client follower")
        try:
            yield positions
        finally:
            self._listeners[run_id].remove(listener)
            if not self._listeners[run_id]:
                del self._listeners[run_id]
            self._quiet_since = _now()

    async def cover(self, partition: int, offset: int | None = None) -> None:
        """See to it that a partition is read, one that is new too, and, given an offset, that it was read from there.

        To go back gives other listeners records they had. Raises TopicsMissing or BrokerUnavailable.
        """
        known = self._tail.positions.get(partition)
        if known is None:
            if partition not in await _answered(self._tail.partitions()):
                raise TopicsMissing(f"the outputs have no partition {partition}: results cannot come")
            # What was unknown before the request was sent began after it, or holds less than a second's records.
            self._tail.seek({partition: offset or 0})
        elif offset is not None and offset < known:
            self._tail.seek({partition: offset})

    async def close(self) -> None:
        """Read no more. Raises what the follower itself failed with, if that was a bug of ours."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._tail.close()
        if task is not None and not task.cancelled():
            task.result()

    def _outdated(self) -> bool:
        return not self.reading and _now() - self._ends_at > FRESH_SECONDS

    async def _asked(self) -> dict[int, int]:
        if not self._opened:
            await _answered(self._tail.open(also=self._also_needed))
            self._opened = True
        partitions = await _answered(self._tail.partitions())
        return await _answered(self._tail.ends(partitions))

    async def _follow(self) -> None:
        try:
            while True:
                for found in await self._tail.poll(POLL_SECONDS):
                    self._hand_out(found)
                if not self._listeners and _now() - self._quiet_since > LINGER_SECONDS:
                    self.reading = False
                    self._tail.pause()
                    self._wanted.clear()
                    await self._wanted.wait()
        except TopicAuthorizationFailedError as error:
            self._give_up(TopicsMissing(f"results cannot be read: {in_words(error)}"))
        except Exception as error:
            self._give_up(error)
            raise

    def _hand_out(self, found: Record | Expired) -> None:
        if isinstance(found, Expired):
            log.warning("records were gone before they were read: %s", found)
            return
        run_id = header_text(last_wins(found.headers), CE_SUBJECT) or self._run_id_of(found)
        for listener in tuple(self._listeners.get(run_id or "", ())):
            listener.take(found)

    def _give_up(self, error: Exception) -> None:
        self._broken = error
        for listeners in tuple(self._listeners.values()):
            for listener in tuple(listeners):
                listener.fail(error)


def run_of_result(record: Record) -> str | None:
    """Whose result this is; None if it cannot be read."""
    result = decode_result(record)
    return None if isinstance(result, Problem) else result.run_id


def run_of_events(record: Record) -> str | None:
    """Whose events these are; None if they cannot be read."""
    events = decode_events(record)
    return None if isinstance(events, Problem) else events.run_id


async def _answered(asking: Awaitable[Answer]) -> Answer:
    try:
        return await asking
    except TopicMissing as error:
        # Brokers do not tell these two apart.
        unseen = "or this user may not see it; `agentstream topics apply` makes what is missing"
        raise TopicsMissing(f"{error}, {unseen}") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"the brokers do not answer: {in_words(error)}") from error


def _now() -> float:
    return asyncio.get_running_loop().time()
