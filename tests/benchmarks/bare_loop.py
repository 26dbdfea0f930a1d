"""The floors: read a topic and write what was read to another, with nothing of the engine in it.

    python -m tests.benchmarks.bare_loop copy SERVERS FROM TO     of throughput: one transaction for each batch
    python -m tests.benchmarks.bare_loop results SERVERS FROM TO  the same, writing as much as results are
    python -m tests.benchmarks.bare_loop runs SERVERS FROM TO     the same, writing all that a streamed run leaves
    python -m tests.benchmarks.bare_loop relay SERVERS FROM TO    of latency: one by one, without transactions

`copy`, `results`, `runs`: one consumer in a group, one transactional producer, 500 records at most in a batch. They run
until they are terminated.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

BATCH = 500
RESULT_BYTES = 1_400
"""The value of a result of two words, and of its line of the index."""
RESULT_HEADERS = [(f"ce_header{number}", b"x" * 24) for number in range(12)]

DELTA_VALUES = tuple(b"x" * size for size in (271, 750, 1_062))
"""The three records of a run that streams two words, as schemas/codec.py writes them for a run id that is a UUID: its
start, its first word, and all the rest up to its end."""
DELTA_HEADERS = [(f"ce_header{number}", b"x" * 24) for number in range(7)]
"""About 240 bytes with their names, and so many: specversion, id, source, type, subject, sequence, traceparent."""
RUN_RESULT = b"x" * 933
RUN_LINE = b"x" * 141
"""What producers/outcomes.py writes of that run: its result, its line of the index of finished runs."""
RUN_HEADERS = [(f"ce_header{number:02}", b"x" * 28) for number in range(11)]
"""Of both: about 427 bytes with their names."""

Sent = list[asyncio.Future[Any]]
Write = Callable[[AIOKafkaProducer, int, Any], Awaitable[Sent]]
"""Writes, in the open transaction, what comes of a record that was read from a partition; gives what to wait for."""


async def copy(servers: str, source: str, to: str) -> None:
    """Copy for ever, exactly once."""

    async def write(producer: AIOKafkaProducer, partition: int, record: Any) -> Sent:
        return [await producer.send(to, record.value, key=record.key, partition=partition)]

    await _exactly_once(servers, source, to, write)


async def results(servers: str, source: str, to: str) -> None:
    """Answer each record for ever, exactly once, with one of a result's size: 2 kB, and the headers of one."""
    value = b"x" * RESULT_BYTES

    async def write(producer: AIOKafkaProducer, partition: int, record: Any) -> Sent:
        return [await producer.send(to, value, key=record.key, partition=partition, headers=RESULT_HEADERS)]

    await _exactly_once(servers, source, to, write)


async def runs(servers: str, source: str, to: str) -> None:
    """Write for each record, for ever, what a run with `stream: full` leaves: no worker of one process does more.

    Results go to the topic itself, deltas and lines of the index to those beside it (`beside`). A batch is committed
    once its deltas are acknowledged, as a result says of its own.
    """
    deltas_to, lines_to = beside(to)
    async with AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True) as deltas:

        async def write(producer: AIOKafkaProducer, partition: int, record: Any) -> Sent:
            key = record.key
            sent = [
                await deltas.send(deltas_to, value, key=key, partition=partition, headers=DELTA_HEADERS)
                for value in DELTA_VALUES
            ]
            sent.append(await producer.send(to, RUN_RESULT, key=key, partition=partition, headers=RUN_HEADERS))
            sent.append(await producer.send(lines_to, RUN_LINE, key=key, partition=partition, headers=RUN_HEADERS))
            return sent

        await _exactly_once(servers, source, to, write)


def beside(to: str) -> tuple[str, str]:
    """The topics of deltas and of the index that go with a topic of results, in `runs`."""
    return f"{to}.deltas", f"{to}.index"


async def _exactly_once(servers: str, source: str, to: str, write: Write) -> None:
    group = f"{to}.group"
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=group)
    async with consumer, producer:
        while True:
            batch = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
            if not batch:
                continue
            async with producer.transaction():
                sent: Sent = []
                for where, records in batch.items():
                    for record in records:
                        sent.extend(await write(producer, where.partition, record))
                await asyncio.gather(*sent)
                await producer.send_offsets_to_transaction(
                    {where: records[-1].offset + 1 for where, records in batch.items()}, group
                )


async def relay(servers: str, source: str, to: str) -> None:
    """Relay partition 0 for ever, from its beginning."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(source, 0)])
    async with consumer, AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True) as producer:
        async for record in consumer:
            await producer.send(to, record.value, key=record.key, partition=0)


if __name__ == "__main__":
    asyncio.run({"copy": copy, "results": results, "runs": runs, "relay": relay}[sys.argv[1]](*sys.argv[2:5]))
