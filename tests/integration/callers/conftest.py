"""Fixtures of the callers' tests: two partitions on the shared broker, outputs written by hand, a client."""

from collections.abc import AsyncIterator

import pytest

from agentstream.consumers.client import AgentClient
from tests.support.callers import client_of
from tests.support.cluster import Cluster, cluster_of
from tests.support.outputs import Outputs, outputs_of
from tests.support.proxy import KafkaProxy


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with two partitions."""
    async with cluster_of(kafka, topics, partitions=2) as one:
        yield one


@pytest.fixture
async def outputs(cluster: Cluster) -> AsyncIterator[Outputs]:
    """Give what writes a worker's outputs by hand."""
    async with outputs_of(cluster) as one:
        yield one


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AgentClient]:
    """Give an open client."""
    async with client_of(cluster) as one:
        yield one


@pytest.fixture
async def proxy(kafka: str) -> AsyncIterator[KafkaProxy]:
    """Give a proxy before the shared broker."""
    async with KafkaProxy(kafka) as one:
        yield one
