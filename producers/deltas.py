"""Stream deltas go out at once, outside any transaction.

Inside one they would be hidden until the commit, and would hold back every reader of the partition. Instead: an
idempotent producer, a bounded queue, and a count of what was acknowledged, so that a result can say whether its
deltas are complete.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from agentstream.producers.delta_queue import Attempt, DeltaQueue, Pending
from agentstream.producers.kafka import Producer, stop_for_good
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 48 * 1024 * 1024
"""In all. Half of it is for a partition that waits alone, since each leaves as much as it takes."""
PUBLISH_SECONDS = 1.0
SETTLE_SECONDS = 10.0
FLUSH_SECONDS = 2.0
"""At the end of a worker: events of drained runs are still on their way."""
FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 5.0
"""Between two producers; from the first again once something was acknowledged, since one may start and never send."""
FRAME_BYTES = 100
"""Of a record, beside its key, value and headers: more than Kafka's format takes."""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """How an attempt's events fared."""

    deltas: Literal["complete", "partial"]
    """Whether the brokers acknowledged all of them."""
    last_seq: int
    """`seq` of the last event acknowledged without a gap; −1 if none."""


class DeltaPublisher:
    """Publishes the events of all runs of a worker. Opened and closed by `async with`, in the loop it was made in.

    `publish` never raises and waits at most a second. A producer that breaks is replaced, and the new one sends
    whatever was not acknowledged again, in order: readers drop an `(attempt_id, seq)` they have seen.

    What waits for a partition goes as one batch of aiokafka's. Given record by record, each with a future, look-ups
    and callbacks of its own, a record cost 20 µs with 64 runs at once; so it costs 9. Each partition waits for
    itself, and leaves room for the others: a broker that is away holds up only the deltas that it leads.
    """

    def __init__(
        self,
        new_producer: Callable[[], Producer],
        acknowledged: Callable[[float], None] = lambda seconds: None,
        *,
        max_record_bytes: int = MAX_REQUEST_BYTES + OUTPUT_MARGIN_BYTES,
    ) -> None:
        """`acknowledged` is told of each record how many seconds it took from `publish` until the brokers had it.

        A record above `max_record_bytes` ends its attempt's events here: brokers that refuse it cost all the producer.
        """
        self._new_producer = new_producer
        self._acknowledged = acknowledged
        self._max_record_bytes = max_record_bytes
        # Kept: on Python 3.11 each look for the running loop makes a system call.
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[str, Attempt] = {}
        self._queues: dict[tuple[str, int], DeltaQueue] = {}
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._producer: Producer | None = None
        self._broken: asyncio.Future[None] = self._loop.create_future()
        """Fails with what broke the present producer."""
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

    def known(self, attempt_id: str) -> Attempt | None:
        """An attempt that began, and was neither settled nor forgotten."""
        return self._attempts.get(attempt_id)

    def begin(self, where: tuple[str, int], key: bytes, headers: DeltaHeaders) -> Attempt:
        """An attempt that is not known; its events all go to this topic and partition, with this key."""
        queue = self._queues.get(where)
        if queue is None:
            queue = self._queues[where] = DeltaQueue(*where)
        attempt = Attempt(headers.attempt_id, queue, key, headers, FRAME_BYTES + len(key) + headers.size)
        self._attempts[attempt.id] = attempt
        return attempt

    async def publish(self, attempt: Attempt, value: bytes, first_seq: int, last_seq: int) -> None:
        """Queue a record of an attempt, with its events from `first_seq` to `last_seq`.

        Waits up to a second for room; after that the attempt's events end here, since a gap would be worse.
        """
        if attempt.broken or attempt.cut_at is not None:
            return
        size, queue = attempt.frame_bytes + len(value), attempt.queue
        if size > self._max_record_bytes:
            attempt.cut_at = last_seq
            self._ended_early("a record is too large")
        elif queue.held_bytes + size > self._most and not await self._has_room(queue, size):
            attempt.give_up()
            self._ended_early("no room: the delta topic does not keep up")
        else:
            self._put(Pending(attempt, value, first_seq, last_seq, size, self._loop.time()))

    def publish_if_idle(self, attempt: Attempt, value: bytes) -> bool:
        """Queue event 0 of an attempt now if half of the room is free, and say whether; if not, forget the attempt.

        For what is good to know, no more.
        """
        size = attempt.frame_bytes + len(value)
        if size > self._max_record_bytes or attempt.queue.held_bytes + size > self._most // 2:
            self.forget(attempt.id)
            return False
        self._put(Pending(attempt, value, 0, 0, size, self._loop.time()))
        return True

    @property
    def _most(self) -> int:
        """Bytes that one partition may hold: no more than it leaves. One whose broker was away took all of the room,
        and the deltas of all others ended, each after a second."""
        return MAX_HELD_BYTES - self._held_bytes

    def _put(self, pending: Pending) -> None:
        attempt, size = pending.attempt, pending.size
        queue = attempt.queue
        queue.waiting.append(pending)
        queue.held_bytes += size
        self._held_bytes += size
        attempt.waiting += 1
        if queue.sending is None:
            self._go_on(queue)

    async def settle(self, attempt_id: str, seconds: float = SETTLE_SECONDS) -> Settled:
        """Wait until all events of an attempt are acknowledged, at most `seconds`, and forget the attempt."""
        attempt = self._attempts.pop(attempt_id, None)
        if attempt is None:
            return Settled(deltas="complete", last_seq=-1)
        if attempt.waiting and not attempt.broken:
            settled = attempt.settled = self._loop.create_future()
            timer = self._loop.call_later(seconds, attempt.settle)
            try:
                await settled
            finally:
                timer.cancel()
        complete = not attempt.waiting and not attempt.broken and attempt.cut_at is None
        return Settled(deltas="complete" if complete else "partial", last_seq=attempt.acked_seq)

    def forget(self, attempt_id: str) -> None:
        """Stop counting an attempt, such as one that was cancelled with its partition."""
        self._attempts.pop(attempt_id, None)

    async def _has_room(self, queue: DeltaQueue, size: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_SECONDS):
                while queue.held_bytes + size > self._most:
                    self._room.clear()
                    await self._room.wait()
        return queue.held_bytes + size <= self._most

    async def _pump_forever(self) -> None:
        while True:
            try:
                await self._use_one_producer()
            except (KafkaError, OSError, AssertionError) as error:
                log.warning("delta producer failed and is replaced: %s", error)
            except Exception:
                # Ended in silence by a bug, the pump would cost every result ten seconds from then on.
                log.exception("delta producer failed and is replaced")
            self.rebuilt += 1
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)

    async def _use_one_producer(self) -> None:
        producer = self._new_producer()
        try:
            await producer.start()
            self._producer, self._broken = producer, self._loop.create_future()
            for queue in self._queues.values():
                self._go_on(queue)
            await self._broken
        finally:
            self._producer = None
            try:
                # First: while it stops, more of what is under way may be acknowledged.
                await stop_for_good(producer, 2.0)
            finally:
                await self._end_sending()

    def _go_on(self, queue: DeltaQueue) -> None:
        if self._producer is not None and queue.waiting and queue.sending is None:
            queue.sending = self._loop.create_task(self._send(queue, self._producer), name="deltas of a partition")

    async def _end_sending(self) -> None:
        sending = {queue.sending for queue in self._queues.values() if queue.sending is not None}
        for task in sending:
            task.cancel()
        if sending:
            await asyncio.wait(sending)

    async def _send(self, queue: DeltaQueue, producer: Producer) -> None:
        try:
            # A run's first event and its first text are published a turn of the loop apart. In two batches the text,
            # which somebody waits for, would go only once the brokers have the other: 1.5 ms later.
            await asyncio.sleep(0)
            while not self._broken.done():
                builder = producer.create_batch()
                self._release(queue, queue.fill(builder))
                if not queue.batch:
                    return
                under_way = await producer.send_batch(builder, queue.topic, partition=queue.partition)
                # What comes meanwhile is the next batch. Filled as soon as this one is acknowledged, it still goes
                # with aiokafka's next request to the broker: one is under way at a time, and we are woken first.
                await under_way
                self._acked(queue)
        except Exception as error:  # noqa: BLE001  # whatever it is, the pump tells of it and replaces the producer
            if isinstance(error, _TOO_LARGE) and (culprit := queue.refused()) is not None:
                self._release(queue, culprit.size)
                self._ended_early("the brokers refused a record as too large")
            if not self._broken.done():
                self._broken.set_exception(error)
        finally:
            queue.put_back()
            queue.sending = None

    def _acked(self, queue: DeltaQueue) -> None:
        batch, now = queue.acknowledged(), self._loop.time()
        self._delay = FIRST_DELAY_SECONDS
        self._release(queue, sum([pending.size for pending in batch]))
        for pending in batch:
            self._acknowledged(now - pending.queued_at)

    def _release(self, queue: DeltaQueue, size: int) -> None:
        queue.held_bytes -= size
        self._held_bytes -= size
        self._room.set()

    def _ended_early(self, why: str) -> None:
        self.dropped += 1
        log.warning("deltas of an attempt end early: %s", why)
