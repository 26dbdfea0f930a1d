"""Fixtures of the engine's tests: a broker that allows short sessions, fresh topics on it, a proxy before it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from agentstream.infra.broker import BrokerOptions, find_broker
from tests.integration.replay_fixtures import stage
from tests.integration.tracing_fixtures import caller, plan, receiver
from tests.support.cluster import Cluster, cluster_of
from tests.support.proxy import KafkaProxy

__all__ = ["caller", "plan", "receiver", "stage"]
_PROPERTIES = {
    # Kafka's own minimum is 6 s: a dozen tests wait until the group forgets a worker.
    "group.min.session.timeout.ms": "1000",
    # How often the broker looks for transactions that took too long.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "engine_kafka" in item.fixturenames:
            item.add_marker("kafka")


@pytest.fixture(scope="session")
def engine_kafka() -> Iterator[str]:
    """Give the bootstrap servers of a broker that all tests of the engine share: do not kill it."""
    broker = find_broker(BrokerOptions(properties=_PROPERTIES), own=True)
    with asyncio.Runner() as runner:
        runner.run(broker.start())
        yield broker.bootstrap_servers
        runner.run(broker.stop())


@pytest.fixture
async def cluster(engine_kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with one partition."""
    async with cluster_of(engine_kafka, topics) as one:
        yield one


@pytest.fixture
async def proxy(engine_kafka: str) -> AsyncIterator[KafkaProxy]:
    """Give a proxy before the engine's broker."""
    async with KafkaProxy(engine_kafka) as one:
        yield one
