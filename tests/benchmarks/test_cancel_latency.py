"""From a cancel that is sent to the result that a read_committed reader sees; the floor is two bare hops."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition

from agentstream.consumers.kafka import Consumer, log_consumer
from agentstream.producers.kafka import Producer, idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Record
from agentstream.schemas.requests import AgentParameters, CancelRun, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.benchmarks.frame import report
from tests.benchmarks.seeing import Seen, seeing
from tests.chaos.inside import plan_of, serving
from tests.support.cluster import Cluster, cluster_of

pytestmark = pytest.mark.bench

TIMES = 200
HANGS = AgentParameters(
    harness=HarnessChoice(kind="scripted", options={"text": "some words first", "hang": "mid_text"})
)


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    async with cluster_of(kafka, topics) as one:
        yield one


def now() -> float:
    """As `seeing` counts, in milliseconds."""
    return time.time() * 1_000


def run_of(record: Record) -> str | None:
    """A result's or delta's run; a bare record's key."""
    return header_text(last_wins(record.headers), CE_SUBJECT) or (record.key or b"").decode()


async def relay(consumer: Consumer, producer: Producer, to: str) -> None:
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                await producer.send_and_wait(to, record.value, key=record.key, partition=0)


async def two_bare_hops(cluster: Cluster) -> list[float]:
    """Request, relay, reader: without transactions, and without anything that is done in between."""
    there, back = f"{cluster.topics.prefix}there", f"{cluster.topics.prefix}back"
    for topic in (there, back):
        await cluster.make_topic(topic)
    size = MAX_REQUEST_BYTES
    async with (
        idempotent_producer(cluster.connection, max_request_size=size) as caller,
        idempotent_producer(cluster.connection, max_request_size=size) as relayer,
        log_consumer(cluster.connection) as consumer,
        seeing(cluster.connection, back, run_of) as seen,
    ):
        consumer.assign([TopicPartition(there, 0)])
        relaying = asyncio.create_task(relay(consumer, relayer, back), name="relay")
        took = []
        for number in range(TIMES + 20):
            began = now()
            await caller.send_and_wait(there, b"x", key=str(number).encode(), partition=0)
            took.append(1_000 * await seen.until(str(number)) - began)
        relaying.cancel()
        await asyncio.wait({relaying})
    return took[20:]


async def cancelled(caller: RequestProducer, seen: Seen, run_id: str) -> float:
    """Milliseconds until the result of a run that is cancelled now was seen."""
    began = now()
    await caller.cancel(CancelRun(run_id=run_id))
    return 1_000 * await seen.until(run_id) - began


async def test_from_cancel_to_result(cluster: Cluster) -> None:
    names = cluster.topics
    async with (
        serving(plan_of(cluster.bootstrap_servers, names.prefix)),
        RequestProducer(
            lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), names
        ) as caller,
        seeing(cluster.connection, names.assistant_messages, run_of) as seen,
        seeing(cluster.connection, names.stream_deltas, run_of) as begun,
    ):
        floor = await two_bare_hops(cluster)
        runs = []
        for number in range(TIMES + 20):
            await submit(caller, f"runs-{number}", f"runs-{number}")
            await begun.until(f"runs-{number}")
            runs.append(await cancelled(caller, seen, f"runs-{number}"))
        await submit(caller, "first", "one session")
        for number in range(TIMES + 20):
            await submit(caller, f"waits-{number}", "one session")
        waits = [await cancelled(caller, seen, f"waits-{number}") for number in range(TIMES + 20)]
        await caller.cancel(CancelRun(run_id="first"))
    with report("cancel latency") as page:
        hops = page.distribution("two bare hops", "ms", floor)
        page.distribution("a run under way", "ms", runs[20:], floor=hops)
        page.distribution("a run that waits", "ms", waits[20:], floor=hops)


async def submit(caller: RequestProducer, run_id: str, session_id: str) -> None:
    messages = (Message.of_text("user", "hi"),)
    await caller.submit(InvokeRequest(id=run_id, session_id=session_id, messages=messages, parameters=HANGS))
