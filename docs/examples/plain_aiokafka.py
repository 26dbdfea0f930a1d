"""Ask an agent with nothing but a Kafka client: what goes over the wire, without any of agentstream's code.

    python docs/examples/plain_aiokafka.py 'Name a river.' [SESSION]

Kafka is at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092. It needs `pip install aiokafka`, and a worker somewhere.
"""

import asyncio
import json
import logging
import os
import secrets
import sys
import uuid
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
PREFIX = os.environ.get("AGENTSTREAM_TOPIC_PREFIX", "agent.")
REQUESTS, DELTAS, RESULTS = (f"{PREFIX}{name}" for name in ("invoke-requests", "stream-deltas", "assistant-messages"))
WAIT_SECONDS = 60.0
LATE_SECONDS = 2.0
"""The result may be read before the last deltas, which are on another topic: so long are those waited for."""


class Reader:
    """The reader's rule: it makes one clean transcript out of whatever workers wrote, also those taken for dead."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.result: dict[str, Any] | None = None
        self._order = (0, 0)
        self._attempt_id = ""
        self._seen: set[int] = set()

    def take_deltas(self, record: dict[str, Any]) -> None:
        """One record of the delta topic: events of one attempt at one run."""
        order = (record["claim"], record["attempt"])
        if record["run_id"] != self.run_id or order < self._order:
            return  # Another run; or an attempt that was given up, whose worker writes late.
        if self.result is not None and record["attempt_id"] != self.result["attempt_id"]:
            return  # Once the result is known, only its attempt counts.
        if record["attempt_id"] != self._attempt_id:
            if self._seen:
                print("\n(once more)")  # What was shown so far is void: the run is tried again.
            self._order, self._attempt_id, self._seen = order, record["attempt_id"], set()
        for event in record["events"]:
            if event["seq"] in self._seen:
                continue  # A record may come twice.
            self._seen.add(event["seq"])
            if event["type"] == "part.delta" and event["part_type"] == "text":
                print(event["delta"], end="", flush=True)
            # Of types and fields that it does not know a reader thinks nothing: newer workers may write them.

    @property
    def complete(self) -> bool:
        """Whether the result was read, and all events up to its `last_seq`."""
        result = self.result
        return result is not None and (
            result["last_seq"] < 0
            or (self._attempt_id == result["attempt_id"] and len(self._seen) > result["last_seq"])
        )


async def ask(producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, question: str, session: str) -> int:
    """Send one request, print its deltas and its result; returns the exit code."""
    # The positions first: an answer that comes before anybody looks is then no lost answer.
    numbers = sorted(await producer.partitions_for(REQUESTS))
    ends = await consumer.end_offsets([TopicPartition(topic, n) for topic in (DELTAS, RESULTS) for n in numbers])
    run_id, trace_id = str(uuid.uuid4()), secrets.token_hex(16)
    request = {"id": run_id, "session_id": session, "messages": [{"role": "user", "content": question}]}
    headers = [
        ("content-type", b"application/json"),
        # W3C trace context: what happens for this request becomes part of this trace. All headers are optional.
        ("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01".encode()),
    ]
    sent = await producer.send_and_wait(REQUESTS, json.dumps(request).encode(), key=session.encode(), headers=headers)
    print(f"run {run_id} in partition {sent.partition}, trace {trace_id}")

    # All that comes of a request is in its partition's number, on every topic.
    mine = [TopicPartition(topic, sent.partition) for topic in (DELTAS, RESULTS)]
    consumer.assign(mine)
    for where in mine:
        consumer.seek(where, ends[where])
    result = await read(consumer, Reader(run_id))
    print(f"\n{result['status']}: {json.dumps(result['messages'], ensure_ascii=False)}")
    print(f"trace of the result: {result['trace_id']}, tokens: {json.dumps(result['usage'])}")
    return 0 if result["status"] == "completed" else 1


async def read(consumer: AIOKafkaConsumer, reader: Reader) -> dict[str, Any]:
    """Read both topics until the run's result and its last delta came. Raises TimeoutError if no result does."""
    clock = asyncio.get_running_loop().time
    until = clock() + WAIT_SECONDS
    while not reader.complete and clock() < until:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                value = json.loads(record.value)
                if record.topic == DELTAS:
                    reader.take_deltas(value)
                elif value["run_id"] == reader.run_id:
                    reader.result, until = value, clock() + LATE_SECONDS
    if reader.result is None:
        raise TimeoutError("no result in time; the run goes on")
    return reader.result


async def main(question: str, session: str) -> int:
    """Open what asking needs, and close it whatever happens."""
    # aiokafka's default partitioner is murmur2, as Java's is: so everybody's requests of a session meet in a partition.
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, enable_idempotence=True)
    # No group: these records are for everybody. Uncommitted results may yet be rolled back, so don't read those.
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVERS, isolation_level="read_committed")
    try:
        await producer.start()
        await consumer.start()
        return await ask(producer, consumer, question, session)
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # What goes wrong is raised as well.
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(uuid.uuid4()))))
    except (KafkaError, TimeoutError) as failure:
        sys.exit(f"error: {failure}")
