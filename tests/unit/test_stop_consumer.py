"""A consumer is ended in bounded time, and nothing that happens on the way looks like its caller's cancellation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from aiokafka.errors import KafkaConnectionError

from agentstream.consumers.kafka import Consumer, stop_consumer
from tests.virtual_time import in_virtual_time


async def at_once() -> None:
    pass


async def for_ever() -> None:
    await asyncio.Event().wait()


async def cancelled_inside() -> None:
    raise asyncio.CancelledError


async def broken() -> None:
    raise KafkaConnectionError("gone")


class Stubborn:
    """The parts of aiokafka's consumer that are ended one by one, each as unwilling as a test wants it."""

    _fetcher = None
    _coordinator = None

    def __init__(self, stop: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        self.stop, self.close = stop, close
        self._client = self


@pytest.mark.parametrize("stop", [for_ever, cancelled_inside])
@pytest.mark.parametrize("close", [at_once, for_ever, cancelled_inside, broken])
def test_whatever_hangs_or_is_cancelled_inside_nothing_is_raised(
    stop: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]
) -> None:
    """A `stop()` that took too long leaves cancelled futures behind, which the second `close()` gathers."""

    async def scenario() -> None:
        await stop_consumer(cast("Consumer", Stubborn(stop, close)))

    in_virtual_time(scenario())


def test_whoever_is_cancelled_meanwhile_is_told() -> None:
    async def scenario() -> None:
        stopping = asyncio.create_task(stop_consumer(cast("Consumer", Stubborn(for_ever, at_once))))
        await asyncio.sleep(0.1)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping

    in_virtual_time(scenario())
