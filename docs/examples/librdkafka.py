"""Ask an agent through librdkafka, the library under confluent-kafka (Python, Go, .NET), kcat and others.

    python docs/examples/librdkafka.py 'Name a river.' [SESSION]

Kafka is at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092. It needs `pip install confluent-kafka`, and a worker somewhere.
The one thing to know is the partitioner, below. Deltas are read as plain_aiokafka.py does; this waits for the result.
"""

import json
import os
import sys
import time
import uuid
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

PREFIX = os.environ.get("AGENTSTREAM_TOPIC_PREFIX", "agent.")
REQUESTS, RESULTS = f"{PREFIX}invoke-requests", f"{PREFIX}assistant-messages"
CONNECTION = {
    "bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
    "log_level": 2,  # What is wrong is raised below: librdkafka need not say it on stderr as well.
}
CONNECT_SECONDS = 5.0
WAIT_SECONDS = 60.0


def ends_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Where each partition of a topic ends now. Raises KafkaException if no broker answers."""
    known = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
    if known.error is not None:
        raise KafkaException(known.error)
    partitions = [TopicPartition(topic, number) for number in known.partitions]
    return [
        TopicPartition(topic, each.partition, consumer.get_watermark_offsets(each, timeout=CONNECT_SECONDS)[1])
        for each in partitions
    ]


def send(run_id: str, session: str, question: str) -> int:
    """Put a request on its topic; returns the partition, once the brokers hold it."""
    producer = Producer(
        CONNECTION
        | {
            # The runs of a session are in order because its requests share a partition. Java and aiokafka choose it by
            # the murmur2 hash of the key, librdkafka by CRC32 unless it is told: callers of two kinds who send to one
            # session would send to two partitions, and their runs would overtake each other.
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "message.timeout.ms": 20_000,
        }
    )
    request = {"id": run_id, "session_id": session, "messages": [{"role": "user", "content": question}]}
    acknowledged: list[int] = []

    def on_delivery(error: object, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        acknowledged.append(message.partition() or 0)

    producer.produce(REQUESTS, key=session, value=json.dumps(request), on_delivery=on_delivery)
    producer.flush()  # Raises what `on_delivery` does.
    return acknowledged[0]


def result_of(consumer: Consumer, run_id: str) -> dict[str, Any]:
    """Read the one result of a run. Raises TimeoutError if it does not come."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        for message in consumer.consume(100, timeout=0.2):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            result: dict[str, Any] = json.loads(message.value() or b"{}")
            if result["run_id"] == run_id:
                return result
    raise TimeoutError("no result in time; the run goes on")


def ask(question: str, session: str) -> int:
    """Send one request and print its result; returns the exit code."""
    run_id = str(uuid.uuid4())
    # librdkafka wants a group's name even where, as here, partitions are chosen by hand and nothing is committed.
    # It reads only what is committed (isolation.level=read_committed) unless it is told otherwise: leave that so.
    consumer = Consumer(CONNECTION | {"group.id": run_id, "enable.auto.commit": False})
    try:
        # The positions first: an answer that comes before anybody looks is then no lost answer.
        ends = ends_of(consumer, RESULTS)
        partition = send(run_id, session, question)
        print(f"run {run_id} in partition {partition}")
        # All that comes of a request is in its partition's number, on every topic.
        consumer.assign([end for end in ends if end.partition == partition])
        result = result_of(consumer, run_id)
    finally:
        consumer.close()
    print(f"{result['status']}: {json.dumps(result['messages'], ensure_ascii=False)}")
    return 0 if result["status"] == "completed" else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        sys.exit(ask(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(uuid.uuid4())))
    except KafkaException as failure:
        sys.exit(f"error: {failure.args[0].str()}")
    except TimeoutError as failure:
        sys.exit(f"error: {failure}")
