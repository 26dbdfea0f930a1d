"""What a program with a client is told while its brokers are away."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from agentstream.consumers.client.outage import Outage
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

AIOKAFKA = logging.getLogger("aiokafka")
FETCHER = logging.getLogger("aiokafka.consumer.fetcher")


@pytest.fixture
async def outage(unused_tcp_port: int) -> AsyncIterator[Outage]:
    found = Outage(KafkaConnection(bootstrap_servers=f"127.0.0.1:{unused_tcp_port}"), Topics())
    yield found
    await found.close()


def try_to_connect() -> None:
    for _ in range(100):
        AIOKAFKA.error("Unable connect to node with id %s: %s", 1, "refused")
        FETCHER.error("Failed fetch messages from %s: %s", 1, "not ready")


async def test_a_hundred_attempts_to_connect_are_one_line(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.open()
    with outage.hears():
        try_to_connect()
        FETCHER.warning("Not authorized to read from topic %s.", "t")
    said = "Kafka does not answer; going on when it does (Unable connect to node with id 1: refused)"
    assert caplog.messages == [said, "Not authorized to read from topic t."]


async def test_tasks_that_were_made_for_the_client_are_heard_and_the_program_s_own_connections_are_left_alone(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    async def connect() -> None:
        AIOKAFKA.error("Unable connect to node with id %s: %s", 1, "refused")

    outage.open()
    with outage.hears():
        ours = asyncio.create_task(connect())
    await ours
    assert [record.name for record in caplog.records] == ["agentstream.consumers.client.outage"]
    await asyncio.create_task(connect())
    assert [record.name for record in caplog.records][1:] == ["aiokafka"]


async def test_what_cannot_be_opened_says_why_and_who_wants_to_know_all_is_told_all(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    with outage.hears():
        try_to_connect()
        assert len(caplog.records) == 200
        outage.open()
        with caplog.at_level(logging.DEBUG, "aiokafka"):
            try_to_connect()
    assert {record.name.partition(".")[0] for record in caplog.records} == {"aiokafka"}
    assert len(caplog.records) == 400
