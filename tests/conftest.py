"""Fixtures for every test: one real Kafka for the whole run, private ones to kill, and fresh topic names."""

import asyncio
import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Protocol

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from agentstream.infra.broker import BrokerOptions, LocalBroker, find_broker

# Else a failed assertion of theirs says nothing but AssertionError.
pytest.register_assert_rewrite("tests.support")

# The machine may be busy with other things: how long an example takes to draw or to run says nothing about the code.
settings.register_profile("agentstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agentstream")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
_NEED_KAFKA = {"kafka", "broker", "private_kafka"}


class PrivateKafka(Protocol):
    """Starts a broker that belongs to one test, which may kill and restart it; it is stopped when the test ends."""

    async def __call__(self, options: BrokerOptions | None = None) -> LocalBroker: ...


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what runs in its background with SIGINT ignored, and programs under test would inherit that.

    And they would find the `agentstream dev` that somebody has running beside the tests, which stands in a file of his.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime = tempfile.TemporaryDirectory(prefix="agentstream-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(runtime.cleanup)
    os.environ["XDG_RUNTIME_DIR"] = runtime.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker, so that `-m "not kafka"` runs the rest in seconds."""
    for item in items:
        if isinstance(item, pytest.Function) and _NEED_KAFKA.intersection(item.fixturenames):
            item.add_marker("kafka")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Run what is marked with `both_loops` on Python's event loop and on uvloop, all else on Python's alone."""
    usual: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    return {**usual, "uvloop": uvloop.new_event_loop} if item.get_closest_marker("both_loops") else usual


@pytest.fixture(scope="session")
def broker() -> Iterator[LocalBroker]:
    """Give the one broker that all tests share, started by the first that asks: do not kill it, see `private_kafka`.

    Synchronous on purpose: it belongs to no test's event loop. It dies with pytest, even if that is killed with -9.
    """
    shared = find_broker()
    with asyncio.Runner() as runner:
        runner.run(shared.start())
        yield shared
        runner.run(shared.stop())


@pytest.fixture(scope="session")
def kafka(broker: LocalBroker) -> str:
    """Give the bootstrap servers of the shared broker."""
    return broker.bootstrap_servers


@pytest.fixture
async def private_kafka() -> AsyncIterator[PrivateKafka]:
    """Give a function that starts a broker of this test's own."""
    async with AsyncExitStack() as stack:

        async def start(options: BrokerOptions | None = None) -> LocalBroker:
            return await stack.enter_async_context(find_broker(options, own=True))

        yield start


@pytest.fixture
def topics() -> str:
    """Give a topic prefix that no other test has, so that tests share a broker without seeing each other."""
    return f"t{secrets.token_hex(4)}."
