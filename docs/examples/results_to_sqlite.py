"""Write every result into a database, exactly once, whenever this program is killed.

    python docs/examples/results_to_sqlite.py results.db       # until Ctrl-C or SIGTERM

Kafka is at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092. It needs `pip install confluent-kafka`.

How it holds: rows, sums and the position on the topic go into the *same* database transaction. Killed before its end,
nothing of it is there and the records are read again; killed after it, all of it is. Offsets that Kafka keeps could not
do that: they are committed a moment earlier (what is in between is lost) or later (it is counted twice).
"""

import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterable
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

PREFIX = os.environ.get("AGENTSTREAM_TOPIC_PREFIX", "agent.")
RESULTS, GROUP = f"{PREFIX}assistant-messages", f"{PREFIX}results-to-sqlite"
CONNECT_SECONDS = 5.0
AT_ONCE = 500
"""Results in one transaction, at most: one sync of the disk for all of them."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    run_id TEXT PRIMARY KEY, session_id TEXT, status TEXT, body TEXT, kafka_partition INTEGER, kafka_offset INTEGER
);
-- What cannot be written twice without harm, unlike a row with a key: sums.
CREATE TABLE IF NOT EXISTS spending (session_id TEXT PRIMARY KEY, runs INTEGER, output_tokens INTEGER);
CREATE TABLE IF NOT EXISTS positions (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition));
"""


def store(database: sqlite3.Connection, messages: Iterable[Message]) -> int:
    """Write some results, what they add to the sums, and where to read on, all in one transaction; returns how many."""
    written = 0
    with database:  # Commits at its end, and rolls back if anything is raised.
        database.execute("BEGIN IMMEDIATE")
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            written += add(database, message)
            # Never back: a copy of this program that lost its partition while it hung may wake and finish a batch
            # late. Its rows are there already and change nothing; neither must its position.
            database.execute(
                "INSERT INTO positions VALUES (?, ?, ?)"
                " ON CONFLICT (topic, partition) DO UPDATE SET next = max(next, excluded.next)",
                (message.topic(), message.partition(), (message.offset() or 0) + 1),
            )
    return written


def add(database: sqlite3.Connection, message: Message) -> int:
    """Write one result, unless its run is known: the first result counts. Returns how many were written."""
    body = message.value() or b""
    result = json.loads(body)
    row = (result["run_id"], result["session_id"], result["status"], body.decode(), message.partition())
    inserted = database.execute(
        "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING", (*row, message.offset())
    )
    if inserted.rowcount == 0:
        return 0
    tokens = sum(usage["output_tokens"] for usage in result["usage"])
    database.execute(
        "INSERT INTO spending VALUES (?, 1, ?) ON CONFLICT (session_id)"
        " DO UPDATE SET runs = runs + 1, output_tokens = output_tokens + excluded.output_tokens",
        (result["session_id"], tokens),
    )
    return 1


def follow(database: sqlite3.Connection, consumer: Consumer) -> None:
    """Read from where the database says, and write, until a signal says that it is enough."""
    # Not by an exception, as Ctrl-C has it: confluent-kafka does not survive one that is raised while it waits.
    enough = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: enough.set())

    def start(_: Consumer, partitions: list[TopicPartition]) -> None:
        # The group shares out the partitions, should there be several copies; where to read on only the database says.
        known = dict(database.execute("SELECT partition, next FROM positions WHERE topic = ?", (RESULTS,)).fetchall())
        for each in partitions:
            each.offset = known.get(each.partition, OFFSET_BEGINNING)
        consumer.assign(partitions)
        print(f"reading {len(partitions)} partitions of {RESULTS}", flush=True)

    consumer.list_topics(RESULTS, timeout=CONNECT_SECONDS)  # Raises if no broker answers; subscribing would only wait.
    consumer.subscribe([RESULTS], on_assign=start)
    while not enough.is_set():
        if messages := consumer.consume(AT_ONCE, timeout=0.5):
            print(f"{store(database, messages)} results written", flush=True)


def main(path: str) -> None:
    """Open both ends, and close them whatever happens."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
            "group.id": GROUP,
            "enable.auto.commit": False,
            # So long the partitions of a copy that was killed wait for another one, or for itself.
            "session.timeout.ms": 6_000,
            # Results of transactions that were rolled back are no results.
            "isolation.level": "read_committed",
            # A position that retention has overtaken means results that were never read: better to stop and say so.
            "auto.offset.reset": "error",
            "log_level": 2,  # What is wrong is raised: librdkafka need not say it on stderr as well.
        }
    )
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as database, closing(consumer):
        database.executescript(SCHEMA)
        follow(database, consumer)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except KafkaException as failure:
        sys.exit(f"error: {failure.args[0].str()}")
    except sqlite3.Error as failure:
        sys.exit(f"error: {sys.argv[1]}: {failure}")
