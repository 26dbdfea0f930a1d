"""The floors: read a topic and write what was read to another, with nothing of the engine in it.

    python -m tests.benchmarks.bare_loop copy SERVERS FROM TO     of throughput: one transaction for each batch
    python -m tests.benchmarks.bare_loop results SERVERS FROM TO  the same, writing as much as results are
    python -m tests.benchmarks.bare_loop relay SERVERS FROM TO    of latency: one by one, without transactions

`copy`: one consumer in a group, one producer, 500 records at most in a batch. It runs until
it is terminated.
"""

import asyncio
import sys
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

BATCH = 500
RESULT_BYTES = 1_400
"""The value of a result of two words, and of its line of the index."""
RESULT_HEADERS = [(f"ce_header{number}", b"x" * 24) for number in range(12)]


async def results(servers: str, source: str, to: str) -> None:
    """Answer each record for ever, exactly once, with one of a result's size: 2 kB, and the headers of one."""
    await copy(servers, source, to, value=b"x" * RESULT_BYTES, headers=RESULT_HEADERS)


async def copy(
    servers: str, source: str, to: str, *, value: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
) -> None:
    """Copy for ever, exactly once; `value`: write that instead of what was read."""
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
                sent = [
                    await producer.send(
                        to, value or record.value, key=record.key, partition=where.partition, headers=list(headers)
                    )
                    for where, records in batch.items()
                    for record in records
                ]
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
    asyncio.run({"copy": copy, "results": results, "relay": relay}[sys.argv[1]](*sys.argv[2:5]))
