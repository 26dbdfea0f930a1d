"""Clients of a test's topics."""

from agentstream.consumers.client import AgentClient
from agentstream.producers.connection import KafkaConnection
from tests.support.cluster import Cluster

CALLER = "caller"
"""The client id of every client that is made here, by which a proxy knows them."""


def client_of(cluster: Cluster, *, through: str | None = None, max_buffered_bytes: int = 100_000) -> AgentClient:
    """A client, not open; `through` is the address that it connects to, such as a proxy's."""
    connection = KafkaConnection(bootstrap_servers=through or cluster.bootstrap_servers, client_id=CALLER)
    return AgentClient(connection=connection, topic_prefix=cluster.topics.prefix, max_buffered_bytes=max_buffered_bytes)
