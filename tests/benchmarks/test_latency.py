"""How long a caller waits: from the request to the first delta, and from the end of the work to the visible result.

The worker and the floor's relay are processes of their own; the reader shares this one with the caller.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agentstream.producers.kafka import idempotent_producer, transactional_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Record
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.benchmarks.frame import report
from tests.benchmarks.seeing import key_of, seeing
from tests.chaos.fleet import Fleet

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

PARTITIONS = 8
WARM_UP = 50
TIMES = 500


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give one worker with eight partitions, and two bare topics of one."""
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(f"{topics}{name}", 1, 1) for name in ("there", "back")])
    await admin.close()
    async with fleet.started(workers=1, partitions=PARTITIONS):
        yield fleet


async def at_rate(per_second: float, send: Callable[[int], Awaitable[None]]) -> None:
    """Call `send` so often a second, whether or not the one before has returned, and wait for all."""
    began = time.monotonic()
    sending = list[asyncio.Task[None]]()
    for number in range(WARM_UP + TIMES):
        await asyncio.sleep(began + number / per_second - time.monotonic())
        sending.append(asyncio.ensure_future(send(number)))
    await asyncio.gather(*sending)


async def two_bare_hops(fleet: Fleet, per_second: float) -> list[float]:
    """Milliseconds from the caller through a relay to a reader."""
    there, back = f"{fleet.prefix}there", f"{fleet.prefix}back"
    arguments = ("-m", "tests.benchmarks.bare_loop", "relay", fleet.bootstrap_servers, there, back)
    relay = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    sent = dict[Hashable, float]()
    try:
        async with (
            idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES) as caller,
            seeing(fleet.connection, back, key_of) as seen,
        ):

            async def send(number: int) -> None:
                sent[str(number).encode()] = time.time()
                await caller.send_and_wait(there, b"x" * 300, key=str(number).encode(), partition=0)

            await at_rate(per_second, send)
            await seen.until_count(WARM_UP + TIMES)
            return [1_000 * (seen.at[name] - at) for name, at in list(sent.items())[WARM_UP:]]
    finally:
        relay.kill()
        await relay.wait()


@asynccontextmanager
async def calling(fleet: Fleet) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """How to submit the request of a number, each of a session of its own: two words, 5 ms between them."""
    async with RequestProducer(
        lambda: idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES), fleet.topics
    ) as producer:

        async def submit(number: int) -> None:
            choice = HarnessChoice(kind="scripted", options={"text": "two words", "delay_ms": 5})
            messages = (Message.of_text("user", "hi"),)
            parameters = AgentParameters(harness=choice)
            await producer.submit(InvokeRequest(id=f"run-{number}", messages=messages, parameters=parameters))

        yield submit


def with_text(record: Record) -> Hashable | None:
    """The run, if a piece of its text is in this record of deltas."""
    body = json.loads(record.value or b"")
    return body["run_id"] if any(event["type"] == "part.delta" for event in body["events"]) else None


async def first_deltas(fleet: Fleet, per_second: float) -> list[float]:
    """Milliseconds from the call to the first piece of text at a reader."""
    sent = dict[Hashable, float]()
    async with (
        calling(fleet) as submit,
        seeing(fleet.connection, fleet.topics.stream_deltas, with_text, partitions=PARTITIONS) as seen,
    ):

        async def call(number: int) -> None:
            sent[f"run-{number}"] = time.time()
            await submit(number)

        await at_rate(per_second, call)
        await seen.until_count(WARM_UP + TIMES)
        return [1_000 * (seen.at[name] - at) for name, at in list(sent.items())[WARM_UP:]]


async def visible_transactions(fleet: Fleet, *, in_order: bool = False) -> list[float]:
    """Milliseconds from the begin of a transaction with one record and one offset until the record is visible.

    `in_order`: the offset is added once the record is acknowledged, as it must be where nothing may be lost. Side by
    side they are quicker by half, but brokers refuse one of them now and then, and it is tried again 20 ms later.
    """
    back, took = f"{fleet.prefix}back", list[float]()
    offsets = {TopicPartition(f"{fleet.prefix}there", 0): 1}
    producer = transactional_producer(fleet.connection, f"{fleet.prefix}bare", max_request_size=MAX_REQUEST_BYTES)
    async with producer, seeing(fleet.connection, back, key_of) as seen:
        for number in range(WARM_UP + TIMES):
            began, key = time.time(), f"{'in order' if in_order else 'beside'} {number}".encode()
            async with producer.transaction():
                sent = await producer.send(back, b"x" * 1_000, key=key, partition=0)
                if in_order:
                    await sent
                await producer.send_offsets_to_transaction(offsets, f"{fleet.prefix}bare")
            took.append(1_000 * (await seen.until(key) - began))
    return took[WARM_UP:]


async def visible_results(fleet: Fleet, per_second: float) -> list[float]:
    """Milliseconds from the end of a run's work, as its result says, until that result is visible."""

    def with_end(record: Record) -> Hashable:
        return datetime.fromisoformat(json.loads(record.value or b"")["ended_at"]).timestamp(), record.position

    async with (
        calling(fleet) as submit,
        seeing(fleet.connection, fleet.topics.assistant_messages, with_end, partitions=PARTITIONS) as seen,
    ):
        await at_rate(per_second, submit)
        await seen.until_count(WARM_UP + TIMES)
    took = [1_000 * (at - name[0]) for name, at in seen.at.items() if isinstance(name, tuple)]
    return took[WARM_UP:]


async def test_from_request_to_first_delta(fleet: Fleet) -> None:
    with report("latency of the first delta") as page:
        floor = page.distribution("two bare hops, 50 a second", "ms", await two_bare_hops(fleet, 50))
        runs = await first_deltas(fleet, 50)
        page.distribution("request sent to first delta, 50 a second", "ms", runs, floor=floor, wanted="≤ 1.5")


async def test_from_end_of_work_to_visible_result(fleet: Fleet) -> None:
    with report("latency of the result") as page:
        floor = page.distribution("one transaction, alone", "ms", await visible_transactions(fleet))
        in_order = await visible_transactions(fleet, in_order=True)
        safe = page.distribution("one transaction, alone, its offset after its record", "ms", in_order)
        runs = await visible_results(fleet, 80)
        page.distribution("end of work to result, 80 a second", "ms", runs, floor=floor, wanted="≤ 1.5")
        page.distribution("the same, beside the transaction in order", "ms", runs, floor=safe)
