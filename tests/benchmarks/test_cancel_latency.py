"""From a cancel that is sent to the result that a read_committed reader sees; the floor is two bare hops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from agentstream.consumers.kafka import Consumer, log_consumer, to_record
from agentstream.producers.kafka import Producer, idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, CancelRun, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.benchmarks.frame import report
from tests.chaos.inside import plan_of, serving
from tests.support.cluster import Cluster, cluster_of
from tests.support.waiting import patience

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
    return asyncio.get_running_loop().time() * 1000


class Seen:
    """Reads a topic as its records become visible, and notes when."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = asyncio.Condition()

    async def read(self, consumer: Consumer) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=1000)
            async with self._changed:
                for raw in (raw for records in batches.values() for raw in records):
                    named = header_text(last_wins(to_record(raw).headers), CE_SUBJECT)
                    self.at.setdefault(named or raw.key.decode(), now())
                self._changed.notify_all()

    async def until(self, name: str) -> float:
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: name in self.at)
        return self.at[name]


@asynccontextmanager
async def seen_on(cluster: Cluster, topic: str) -> AsyncIterator[Seen]:
    """What a read_committed reader sees of a topic, by run id."""
    seen = Seen()
    async with log_consumer(cluster.connection) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        reading = asyncio.create_task(seen.read(consumer), name="reader")
        try:
            yield seen
        finally:
            reading.cancel()
            await asyncio.wait({reading})


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
        seen_on(cluster, back) as seen,
    ):
        consumer.assign([TopicPartition(there, 0)])
        relaying = asyncio.create_task(relay(consumer, relayer, back), name="relay")
        took = []
        for number in range(TIMES + 20):
            began = now()
            await caller.send_and_wait(there, b"x", key=str(number).encode(), partition=0)
            took.append(await seen.until(str(number)) - began)
        relaying.cancel()
        await asyncio.wait({relaying})
    return took[20:]


async def cancelled(caller: RequestProducer, seen: Seen, run_id: str) -> float:
    """Milliseconds until the result of a run that is cancelled now was seen."""
    began = now()
    await caller.cancel(CancelRun(run_id=run_id))
    return await seen.until(run_id) - began


async def test_from_cancel_to_result(cluster: Cluster) -> None:
    names = cluster.topics
    async with (
        serving(plan_of(cluster.bootstrap_servers, names.prefix)),
        RequestProducer(
            lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), names
        ) as caller,
        seen_on(cluster, names.assistant_messages) as seen,
        seen_on(cluster, names.stream_deltas) as begun,
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
