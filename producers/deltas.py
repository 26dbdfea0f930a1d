"""Stream deltas go out at once, outside any transaction.

Inside one they would be hidden until the commit, and would hold back every reader of the partition. Instead: an
idempotent producer, a bounded queue, and a count of what was acknowledged, so that a result can say whether its
deltas are complete.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from agentstream.producers.kafka import Producer, stop_for_good
from agentstream.schemas.records import OutgoingRecord

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 32 * 1024 * 1024
PUBLISH_SECONDS = 1.0
SETTLE_SECONDS = 10.0
FLUSH_SECONDS = 2.0
"""At the end of a worker: events of drained runs are still on their way."""
FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 5.0
"""Between two producers; from the first again once something was acknowledged, since one may start and never send."""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(slots=True)
class _Attempt:
    """What is known of one attempt's events."""

    waiting: "deque[_Pending]" = field(default_factory=deque)
    acked_seq: int = -1
    broken: bool = False
    cut_at: int | None = None
    """`last_seq` of a record that was refused: nothing from there on is sent, a gap would be worse."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class _Pending:
    """One record on its way."""

    record: OutgoingRecord
    last_seq: int
    attempt: _Attempt
    size: int
    queued_at: float
    """On the loop's clock."""
    acked: bool = False
    suspect: bool = False
    """Its batch was refused: sent again, it goes alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """How an attempt's events fared."""

    deltas: Literal["complete", "partial"]
    """Whether the brokers acknowledged all of them."""
    last_seq: int
    """`seq` of the last event acknowledged without a gap; −1 if none."""


class DeltaPublisher:
    """Publishes the events of all runs of a worker. Opened and closed by `async with`.

    `publish` never raises and waits at most a second. A producer that breaks is replaced, and the new one sends
    whatever was not acknowledged again, in order: readers drop an `(attempt_id, seq)` they have seen.
    """

    def __init__(
        self, new_producer: Callable[[], Producer], acknowledged: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """`acknowledged` is told of each record how many seconds it took from `publish` until the brokers had it."""
        self._new_producer = new_producer
        self._acknowledged = acknowledged
        self._attempts: dict[str, _Attempt] = {}
        self._queued: deque[_Pending] = deque()
        self._unacked: deque[_Pending] = deque()
        self._held_bytes = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._broken = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._delay = FIRST_DELAY_SECONDS
        self.rebuilt = 0
        self.dropped = 0

    async def __aenter__(self) -> Self:
        self._pump = asyncio.create_task(self._pump_forever(), name="deltas")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    while self._held_bytes:
                        self._room.clear()
                        await self._room.wait()
        finally:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.wait({self._pump})

    async def publish(self, attempt_id: str, last_seq: int, record: OutgoingRecord) -> None:
        """Queue one record of an attempt; `last_seq` is that of its last event.

        Waits up to a second for room; after that the attempt's events end here, since a gap would be worse.
        """
        attempt = self._attempts.setdefault(attempt_id, _Attempt())
        if attempt.broken:
            return
        if self._held_bytes + record.size > MAX_HELD_BYTES and not await self._has_room(record.size):
            self._give_up(attempt, "no room: the delta topic does not keep up")
            return
        self._queue(attempt, last_seq, record)

    def publish_if_idle(self, attempt_id: str, last_seq: int, record: OutgoingRecord) -> bool:
        """Queue one record now if half of the room is free, and say whether: for what is good to know, no more."""
        if self._held_bytes + record.size > MAX_HELD_BYTES // 2:
            return False
        self._queue(self._attempts.setdefault(attempt_id, _Attempt()), last_seq, record)
        return True

    def _queue(self, attempt: _Attempt, last_seq: int, record: OutgoingRecord) -> None:
        now = asyncio.get_running_loop().time()
        pending = _Pending(record=record, last_seq=last_seq, attempt=attempt, size=record.size, queued_at=now)
        attempt.waiting.append(pending)
        attempt.settled.clear()
        self._queued.append(pending)
        self._held_bytes += pending.size
        self._work.set()

    async def settle(self, attempt_id: str, seconds: float = SETTLE_SECONDS) -> Settled:
        """Wait until all events of an attempt are acknowledged, at most `seconds`, and forget the attempt."""
        attempt = self._attempts.get(attempt_id, _Attempt())
        try:
            if attempt.waiting and not attempt.broken:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await attempt.settled.wait()
        finally:
            self.forget(attempt_id)
        complete = not attempt.waiting and not attempt.broken
        return Settled(deltas="complete" if complete else "partial", last_seq=attempt.acked_seq)

    def forget(self, attempt_id: str) -> None:
        """Stop counting an attempt, such as one that was cancelled with its partition."""
        self._attempts.pop(attempt_id, None)

    async def _has_room(self, size: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_SECONDS):
                while self._held_bytes + size > MAX_HELD_BYTES:
                    self._room.clear()
                    await self._room.wait()
        return self._held_bytes + size <= MAX_HELD_BYTES

    async def _pump_forever(self) -> None:
        while True:
            try:
                await self._use_one_producer()
            except (KafkaError, OSError, AssertionError) as error:
                log.warning("delta producer could not go on: %s", error)
            except Exception:
                # Ended in silence by a bug, the pump would cost every result ten seconds from then on.
                log.exception("delta producer could not go on")
            self.rebuilt += 1
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)

    async def _use_one_producer(self) -> None:
        producer = self._new_producer()
        try:
            await producer.start()
            self._broken.clear()
            # What was acknowledged behind a gap stays here as well; readers would see it before what the gap hid.
            self._queued.extendleft(pending for pending in reversed(self._unacked) if not pending.acked)
            self._unacked.clear()
            await self._send_until_broken(producer)
        finally:
            await stop_for_good(producer, 2.0)

    async def _send_until_broken(self, producer: Producer) -> None:
        under_way: set[asyncio.Future[Any]] = set()
        while not self._broken.is_set():
            if not self._queued:
                self._work.clear()
                await self._work.wait()
                continue
            pending = self._queued.popleft()
            cut_at = pending.attempt.cut_at
            if cut_at is not None and pending.last_seq >= cut_at:
                self._release(pending)
                continue
            self._unacked.append(pending)
            if pending.suspect and under_way:
                await asyncio.wait(under_way)
                if self._broken.is_set():
                    return
            if (future := await self._send(producer, pending)) is None:
                continue
            under_way.add(future)
            future.add_done_callback(under_way.discard)
            if pending.suspect:
                await asyncio.wait({future})

    async def _send(self, producer: Producer, pending: _Pending) -> "asyncio.Future[Any] | None":
        record = pending.record
        try:
            future: asyncio.Future[Any] = await producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
        except _TOO_LARGE as error:
            self._refused(pending, error)
            return None
        future.add_done_callback(lambda done: self._answered(pending, done))
        return future

    def _answered(self, pending: _Pending, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            self._acked(pending)
            return
        if isinstance(error, _TOO_LARGE) and pending.suspect:
            self._refused(pending, error)
        elif isinstance(error, _TOO_LARGE):
            # The brokers refuse whole batches, with what other runs have in them: they must not suffer for it.
            pending.suspect = True
        if not self._broken.is_set():
            log.warning("delta producer failed and is replaced: %s", error)
        self._broken.set()
        self._work.set()

    def _acked(self, pending: _Pending) -> None:
        pending.acked = True
        self._acknowledged(asyncio.get_running_loop().time() - pending.queued_at)
        self._delay = FIRST_DELAY_SECONDS
        while self._unacked and self._unacked[0].acked:
            self._unacked.popleft()
        self._release(pending)
        attempt = pending.attempt
        while attempt.waiting and attempt.waiting[0].acked:
            attempt.acked_seq = attempt.waiting.popleft().last_seq
        if not attempt.waiting:
            attempt.settled.set()

    def _refused(self, pending: _Pending, error: BaseException) -> None:
        with contextlib.suppress(ValueError):
            self._unacked.remove(pending)
        self._release(pending)
        pending.attempt.cut_at = pending.last_seq
        self._give_up(pending.attempt, f"a record was refused: {type(error).__name__}")

    def _release(self, pending: _Pending) -> None:
        self._held_bytes -= pending.size
        pending.size = 0
        self._room.set()

    def _give_up(self, attempt: _Attempt, why: str) -> None:
        self.dropped += 1
        log.warning("deltas of an attempt end early: %s", why)
        attempt.broken = True
        attempt.settled.set()
