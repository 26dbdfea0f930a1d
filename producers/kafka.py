"""The one file that knows aiokafka's producer: how each kind is built, who owns one, how one is ended for good."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from agentstream.producers.answers import expect_answers
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.next_transaction import begin_promptly

Producer = AIOKafkaProducer
"""The name under which the rest of the code speaks of it."""

TRANSACTION_TIMEOUT_MS = 60_000
"""A transaction lives milliseconds; the minute is for a broker that restarts in the middle (6–13 s measured)."""
SEND_SECONDS = 60.0
"""Whoever waits for the brokers to acknowledge what was sent outside a transaction waits so long."""
STOP_SECONDS = 5.0


def transactional_producer(
    connection: KafkaConnection,
    transactional_id: str,
    *,
    max_request_size: int,
    transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
    given_up: Callable[[], None] = lambda: None,
) -> AIOKafkaProducer:
    """A producer for transactions, not started. Its start fences whoever used the id before. For `given_up` see
    `expect_answers`.

    `retry_backoff_ms=20`: fencing an open transaction takes 121 ms at the default of 100, and 38 ms at 20.
    """
    producer = AIOKafkaProducer(
        **connection.client_options(),
        transactional_id=transactional_id,
        transaction_timeout_ms=transaction_timeout_ms,
        retry_backoff_ms=20,
        max_request_size=max_request_size,
        max_batch_size=max_request_size,
    )
    expect_answers(producer.client, connection, given_up=given_up)
    begin_promptly(producer._sender)
    _end_quietly(producer._message_accumulator)
    return producer


def _end_quietly(accumulator: Any) -> None:
    """End a produce request whose batch has failed meanwhile. The sender fails all of them when it dies, of a refused
    offset say; a request that was under way then looked for its own in vain: a KeyError that nobody saw."""
    put_back = accumulator.reenqueue

    def put_back_or_end(batch: Any) -> None:
        if batch not in accumulator._pending_batches:
            raise asyncio.CancelledError
        put_back(batch)

    accumulator.reenqueue = put_back_or_end


def idempotent_producer(connection: KafkaConnection, *, max_request_size: int) -> AIOKafkaProducer:
    """A producer whose own retries write nothing twice, not started.

    Without idempotence 2, 2 and 5 deltas were duplicated by three broker kills; with it none.
    """
    producer = AIOKafkaProducer(
        **connection.client_options(),
        enable_idempotence=True,
        max_request_size=max_request_size,
        max_batch_size=max_request_size,
    )
    expect_answers(producer.client, connection)
    return producer


class ProducerOwner:
    """Has a producer of its own: entering starts it, leaving ends it for good, and so does a start that fails."""

    def __init__(self, new_producer: Callable[[], AIOKafkaProducer]) -> None:
        self._producer = new_producer()

    async def __aenter__(self) -> Self:
        try:
            await self._producer.start()
        except BaseException:
            await stop_for_good(self._producer)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await stop_for_good(self._producer)


async def stop_for_good(producer: AIOKafkaProducer, seconds: float = STOP_SECONDS) -> None:
    """Stop a producer within about `3 * seconds`, whatever state it is in. May be called twice.

    Raises nothing but the caller's own cancellation, at the end: one that got lost in here would let the task of a
    partition that is gone go on, and fence its new owner.

    aiokafka's own `stop()` waits for batches that never expire. When it is cut short, its sender task and sockets
    stay alive and a second `stop()` does nothing, so the pieces are ended here one by one.
    """
    ending = asyncio.create_task(_stop(producer, seconds), name="stop producer")
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    ending.result()


async def _stop(producer: AIOKafkaProducer, seconds: float) -> None:
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=seconds)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None or _sender_lives(producer):
        await _end_pieces(producer, stopping, seconds)
    # A producer that was fenced fails all that waits. Looked at, or asyncio prints each as an error that nobody saw.
    accumulator, transactions = producer._message_accumulator, producer._txn_manager
    for batches in (*accumulator._batches.values(), accumulator._pending_batches):
        for batch in batches:
            look_at(batch._drain_waiter)
    if transactions is not None:
        look_at(transactions._transaction_waiter)


async def close_connections(client: Any, seconds: float) -> None:
    """Close those of an aiokafka client, in bounded time. Raises nothing of its own, no cancellation either."""
    closing = asyncio.ensure_future(client.close())
    closing.add_done_callback(look_at)
    await asyncio.wait({closing}, timeout=seconds)
    closing.cancel()


def look_at(future: "asyncio.Future[Any] | None") -> None:
    """Take note of a future's error, if it has one: asyncio prints those that nobody saw, at some later time."""
    if future is not None and future.done() and not future.cancelled():
        future.exception()


def _sender_lives(producer: AIOKafkaProducer) -> bool:
    task: asyncio.Task[Any] | None = producer._sender.sender_task
    return task is not None and not task.done()


async def _end_pieces(producer: AIOKafkaProducer, stopping: "asyncio.Future[Any]", seconds: float) -> None:
    producer._closed = True
    stopping.cancel()
    await close_connections(producer.client, seconds)
    # The first cancel makes the sender wait for its requests, the second ends that wait too.
    for _ in range(2):
        task: asyncio.Task[Any] | None = producer._sender.sender_task
        if task is None or task.done():
            break
        task.cancel()
        await asyncio.wait({task}, timeout=seconds / 2)
    # Last: a sender that lives would put failed batches back, and die of what it no longer finds.
    accumulator = producer._message_accumulator
    for batches in accumulator._batches.values():
        # aiokafka takes each failed batch out of this set, and those that wait to be sent again are not in it.
        accumulator._pending_batches.update(batches)
    accumulator.fail_all(KafkaConnectionError("the producer was stopped"))
    look_at(stopping)
