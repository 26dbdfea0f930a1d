"""Clients of a test's topics, and what they ask for."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from agentstream.consumers.client import AgentClient
from agentstream.infra.topics import apply_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.requests import AgentParameters, HarnessChoice
from agentstream.schemas.topics import Topics
from tests.chaos.inside import plan_of, serving
from tests.support.cluster import Cluster

CALLER = "caller"
"""The client id of every client that is made here, by which a proxy knows them."""


def client_of(cluster: Cluster, *, through: str | None = None, max_buffered_bytes: int = 100_000) -> AgentClient:
    """A client, not open; `through` is the address that it connects to, such as a proxy's."""
    connection = KafkaConnection(bootstrap_servers=through or cluster.bootstrap_servers, client_id=CALLER)
    return AgentClient(connection=connection, topic_prefix=cluster.topics.prefix, max_buffered_bytes=max_buffered_bytes)


@asynccontextmanager
async def answered(kafka: str, topics: str, *, partitions: int) -> AsyncIterator[AgentClient]:
    """A client of fresh topics, and a worker that plays what its requests say."""
    await apply_topics(KafkaConnection(bootstrap_servers=kafka), Topics(prefix=topics), partitions=partitions)
    async with serving(plan_of(kafka, topics)), AgentClient(kafka, topic_prefix=topics) as client:
        yield client


def playing(**options: object) -> AgentParameters:
    """Has the scripted harness play this."""
    return AgentParameters(harness=HarnessChoice.model_validate({"kind": "scripted", "options": options}))


HANGS = playing(text="some words", hang="mid_text")
"""Never ends by itself."""


def kinds(events: Iterable[object]) -> list[str]:
    """What a caller was given, by the names of it."""
    return [getattr(event, "type", "voided") for event in events]
