"""Control records: every worker reads the whole control topic, without a group, since only one of them runs the run.

Control.find(run_id) -> CancelRun | None     also for requests that were not read yet
listen(listener)                             called with each CancelRun as it comes
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Self

from aiokafka.errors import KafkaError
from pydantic import JsonValue

from agentstream.consumers.readers.tail import Expired, Tail, TopicMissing
from agentstream.schemas.codec import Rejection, decode_control
from agentstream.schemas.records import Record
from agentstream.schemas.requests import CancelRun

log = logging.getLogger(__name__)

MAX_TOMBSTONES = 1_000_000
"""Run ids remembered as cancelled, by a hash of 16 bytes each: about 150 MB at worst, and the oldest go first."""
MAX_REASONS = 10_000
"""Of the newest ones it is remembered as well by whom and why."""
TOLD_SINGLY, TOLD_EVERY = 10, 1_000
"""Of records that are no control requests the first ten are logged, then every thousandth: whoever floods the topic
shall not fill every worker's disk as well. `/status` has the count."""
RECORDS_AT_ONCE = 500
"""One fetch of a flood has 10,000 records and more: half a second without heartbeats and deltas, taken at once."""
CATCH_UP_SECONDS = 10.0
PARTITION = 0
POLL_SECONDS = 0.5


class Tombstones:
    """Runs that are to end as cancelled, whether or not their requests were read. Pure."""

    def __init__(self, *, most: int = MAX_TOMBSTONES, reasons: int = MAX_REASONS) -> None:
        self._most = most
        self._most_reasons = reasons
        self._buried: OrderedDict[bytes, CancelRun | None] = OrderedDict()
        self._reasons: OrderedDict[bytes, None] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._buried)

    def bury(self, cancel: CancelRun) -> None:
        """Remember it. The first request for a run stands: a second one changes neither whom nor why."""
        name = _hash(cancel.run_id)
        if name in self._buried:
            return
        self._buried[name] = cancel
        self._reasons[name] = None
        if len(self._reasons) > self._most_reasons:
            oldest, _ = self._reasons.popitem(last=False)
            self._buried[oldest] = None
        if len(self._buried) > self._most:
            oldest, _ = self._buried.popitem(last=False)
            self._reasons.pop(oldest, None)
            self.forgotten += 1

    def find(self, run_id: str) -> CancelRun | None:
        """The request to cancel this run, without its reason if that is long past."""
        if not self._buried:
            return None  # as a rule; to hash the id takes 1 µs, and it is asked twice for each run
        name = _hash(run_id)
        if name not in self._buried:
            return None
        return self._buried[name] or CancelRun(run_id=run_id)


def _hash(run_id: str) -> bytes:
    return blake2b(run_id.encode(), digest_size=16).digest()


class Control:
    """Follows the control topic. Opened and closed by `async with`; never raises for what the topic holds."""

    def __init__(self, tail: Tail, *, tombstones: Tombstones | None = None) -> None:
        self._tail = tail
        self._tombstones = Tombstones() if tombstones is None else tombstones
        self._caught_up = asyncio.Event()
        self._listener: Callable[[CancelRun], None] = lambda _: None
        self._task: asyncio.Task[None] | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self.ignored = 0

    async def __aenter__(self) -> Self:
        self._overdue = asyncio.get_running_loop().call_later(CATCH_UP_SECONDS, self._give_up_waiting)
        self._task = asyncio.create_task(self._follow(), name="control")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._tail.close()

    def listen(self, listener: Callable[[CancelRun], None]) -> None:
        """Call this, plainly and at once, with each control request from now on."""
        self._listener = listener

    async def caught_up(self) -> None:
        """Wait until the topic was read to the end that it had at the start, at most ten seconds after that."""
        await self._caught_up.wait()

    def find(self, run_id: str) -> CancelRun | None:
        """The request to cancel this run, if there is one."""
        return self._tombstones.find(run_id)

    def counts(self) -> dict[str, JsonValue]:
        """Runs to be cancelled that are remembered and were forgotten, and records that were ignored."""
        tombstones = self._tombstones
        return {"tombstones": len(tombstones), "forgotten": tombstones.forgotten, "ignored": self.ignored}

    def _give_up_waiting(self) -> None:
        if not self._caught_up.is_set():
            log.warning("the control topic could not be read in %g s: runs start without it", CATCH_UP_SECONDS)
            self._caught_up.set()

    async def _follow(self) -> None:
        end = await self._begin()
        while True:
            if not self._caught_up.is_set() and (await self._position()) >= end:
                log.info("control: %d runs are to be cancelled", len(self._tombstones))
                self._caught_up.set()
            for number, item in enumerate(await self._tail.poll(POLL_SECONDS), start=1):
                if isinstance(item, Expired):
                    log.info("control records up to %d have expired", item.resumed_at)
                else:
                    self._take(item)
                if number % RECORDS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _begin(self) -> int:
        """Position at the beginning; gives the end as it is now. Tries again for as long as it takes."""
        while True:
            try:
                await self._tail.open()
                begin = await self._tail.beginnings([PARTITION])
                end = await self._tail.ends([PARTITION])
            except (KafkaError, OSError, TimeoutError, TopicMissing) as error:
                log.warning("the control topic cannot be read, trying again: %r", error)
                await asyncio.sleep(1.0)
            else:
                self._tail.seek(begin)
                self._tail.resume()
                return end[PARTITION]

    async def _position(self) -> int:
        try:
            return (await self._tail.reached())[PARTITION]
        except (KafkaError, OSError, TimeoutError):
            return self._tail.positions[PARTITION]

    def _take(self, record: Record) -> None:
        match decode_control(record):
            case CancelRun() as cancel:
                self._tombstones.bury(cancel)
                self._listener(cancel)
            case Rejection() as rejection:
                self.ignored += 1
                if self.ignored <= TOLD_SINGLY or self.ignored % TOLD_EVERY == 0:
                    why_not = rejection.problem.detail
                    log.warning("control record %s is ignored (%d so far): %s", record.position, self.ignored, why_not)


def why(cancel: CancelRun) -> str:
    """One line for the result: by whom and why, as far as it is known."""
    by = f" by {cancel.requested_by}" if cancel.requested_by else ""
    reason = f": {cancel.reason}" if cancel.reason else ""
    return f"cancelled{by}{reason}"
