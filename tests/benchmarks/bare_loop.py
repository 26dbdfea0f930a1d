"""The floor of throughput: read a topic, write what was read to another, both in one transaction for each batch.

    python -m tests.benchmarks.bare_loop SERVERS FROM TO

Nothing of the engine is in it: one consumer in a group, one producer, 500 records at most in a batch. It runs until
it is terminated.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

BATCH = 500


async def copy(servers: str, source: str, to: str) -> None:
    """Copy for ever, exactly once."""
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
                    await producer.send(to, record.value, key=record.key, partition=where.partition)
                    for where, records in batch.items()
                    for record in records
                ]
                await asyncio.gather(*sent)
                await producer.send_offsets_to_transaction(
                    {where: records[-1].offset + 1 for where, records in batch.items()}, group
                )


if __name__ == "__main__":
    asyncio.run(copy(*sys.argv[1:4]))
