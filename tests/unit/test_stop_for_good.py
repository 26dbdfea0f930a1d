"""A producer is ended whatever state it is in, in bounded time, and nobody's cancellation is lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer, stop_for_good, transactional_producer
from tests.virtual_time import in_virtual_time

SECONDS = 5.0


async def for_ever() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    pass


async def broken() -> None:
    raise KafkaConnectionError("gone")


async def cancelled_inside() -> None:
    raise asyncio.CancelledError


class Stubborn:
    """The parts of aiokafka's producer that are ended one by one, each as unwilling as a test wants it."""

    def __init__(
        self,
        stop: Callable[[], Awaitable[None]] = at_once,
        close: Callable[[], Awaitable[None]] = at_once,
        cancels_to_end_the_sender: int = 1,
    ) -> None:
        self._stop, self._close = stop, close
        self._closed = False
        self._sender = self
        self._message_accumulator = self
        self.client = self
        self._txn_manager = None
        self._batches: dict[object, list[object]] = {}
        self._pending_batches: set[object] = set()
        self.failed_with: list[Exception] = []
        self.sender_task = asyncio.create_task(self._send(cancels_to_end_the_sender))

    async def stop(self) -> None:
        await self._stop()

    async def close(self) -> None:
        await self._close()

    def fail_all(self, error: Exception) -> None:
        self.failed_with.append(error)

    async def _send(self, cancels: int) -> None:
        while cancels:
            try:
                await for_ever()
            except asyncio.CancelledError:
                cancels -= 1
        raise asyncio.CancelledError


def end(producer: Stubborn) -> Awaitable[None]:
    return stop_for_good(cast("AIOKafkaProducer", producer), SECONDS)


def others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.mark.parametrize("stop", [for_ever, broken, cancelled_inside, at_once])
@pytest.mark.parametrize("close", [for_ever, broken, at_once])
@pytest.mark.parametrize("cancels", [1, 2])
def test_whatever_hangs_or_breaks_everything_is_ended_and_nothing_raised(
    stop: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]], cancels: int
) -> None:
    async def scenario() -> None:
        producer = Stubborn(stop, close, cancels)
        await end(producer)
        assert producer.sender_task.done()
        assert [str(error) for error in producer.failed_with] == ["KafkaConnectionError: the producer was stopped"]
        assert producer._closed, "another stop() must not hang in the same place"
        assert asyncio.get_running_loop().time() <= 3 * SECONDS
        await asyncio.sleep(0)
        assert others() == set()

    in_virtual_time(scenario())


def test_a_producer_that_stops_by_itself_is_left_alone() -> None:
    async def scenario() -> None:
        producer = Stubborn()

        async def end_sender() -> None:
            producer.sender_task.cancel()
            await asyncio.wait({producer.sender_task})

        producer._stop = end_sender
        await end(producer)
        assert producer.failed_with == []
        assert asyncio.get_running_loop().time() == 0

    in_virtual_time(scenario())


@pytest.mark.parametrize("after", [1.0, 5.5, 10.5])
def test_whoever_is_cancelled_meanwhile_is_told_when_everything_is_ended(after: float) -> None:
    # Swallowed, the task of a partition that was gone went on, opened a new writer and fenced its new owner.
    async def scenario() -> None:
        producer = Stubborn(for_ever, for_ever, 3)
        went_on = False

        async def partition() -> None:
            nonlocal went_on
            await end(producer)
            went_on = True

        task = asyncio.create_task(partition())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not went_on
        assert producer.failed_with != []
        producer.sender_task.cancel()
        await asyncio.wait({producer.sender_task})
        await asyncio.sleep(0)
        assert others() == set()

    in_virtual_time(scenario())


@pytest.mark.parametrize("kind", [idempotent_producer, transactional_producer])
async def test_a_real_producer_that_never_started_can_be_stopped_twice(kind: Callable[..., AIOKafkaProducer]) -> None:
    more = {"transactional_id": "id"} if kind is transactional_producer else {}
    producer = kind(KafkaConnection(bootstrap_servers="127.0.0.1:1"), max_request_size=1_000, **more)
    await stop_for_good(producer, 1.0)
    await stop_for_good(producer, 1.0)
    assert others() == set()


@asynccontextmanager
async def silent_broker() -> AsyncIterator[str]:
    """Takes connections and never answers."""
    writers: list[asyncio.StreamWriter] = []

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await server.wait_closed()


async def test_a_real_producer_whose_start_was_given_up_leaves_no_task_behind() -> None:
    async with silent_broker() as address:
        before = others()
        producer = idempotent_producer(KafkaConnection(bootstrap_servers=address), max_request_size=1_000)
        with pytest.raises((TimeoutError, KafkaError)):
            async with asyncio.timeout(0.05):
                await producer.start()
        await stop_for_good(producer, 0.2)
        assert {task for task in others() - before if "take" not in repr(task)} == set()
