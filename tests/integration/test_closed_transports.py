"""Connections that close as something is written to them, on both event loops: each says it in its own way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from agentstream.producers.answers import expect_answers
from agentstream.producers.connection import KafkaConnection
from tests.support.waiting import eventually, patience

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def client(kafka: str) -> AsyncIterator[AIOKafkaClient]:
    connection = KafkaConnection(bootstrap_servers=kafka)
    one = AIOKafkaClient(**connection.client_options())
    expect_answers(one, connection)
    await one.bootstrap()
    yield one
    await one.close()


async def lose(client: AIOKafkaClient) -> int:
    """Return, with the broker's id, as the connection to it was reset and aiokafka has not heard of it yet."""
    (broker,) = client.cluster.brokers()
    async with patience():
        assert await client.ready(broker.nodeId)
    one = client._conns[broker.nodeId, ConnectionGroup.DEFAULT]
    lost = asyncio.Event()

    def reset() -> None:
        one._reader.set_exception(ConnectionResetError())
        lost.set()

    one._reader.feed_eof = reset
    one._writer.transport.abort()
    await lost.wait()
    assert one.connected()
    return int(broker.nodeId)


async def test_what_is_sent_over_it_fails_as_a_lost_connection_does(client: AIOKafkaClient) -> None:
    """Under uvloop it was a RuntimeError, and the worker ended with 70."""
    node = await lose(client)
    with pytest.raises(KafkaConnectionError):
        await client.send(node, MetadataRequest([]))
    one = client._conns[node, ConnectionGroup.DEFAULT]
    await eventually(lambda: not one.connected(), "aiokafka has heard of it")
    async with patience():
        assert (await client.send(node, MetadataRequest([]))).brokers


async def test_metadata_that_was_to_come_over_it_is_asked_for_again(client: AIOKafkaClient) -> None:
    """Under uvloop the task that does so would end in silence, and the client never hear of a new leader."""
    await lose(client)
    assert await client._metadata_update(client.cluster, []) is False
    async with patience():
        assert await client.force_metadata_update()
