"""The checker: reads the topics from offset 0 and trusts nothing but the log.

It shares no bookkeeping with the engine: what it knows of promises is written out here once more.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agentstream.consumers.kafka import log_consumer
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One record of a log, decoded."""

    partition: int
    offset: int
    key: str
    headers: dict[str, str]
    value: bytes

    @property
    def body(self) -> Json:
        parsed: Json = json.loads(self.value)
        return parsed


@dataclass(kw_only=True)
class Log:
    """Everything the topics hold."""

    requests: list[Line]
    results: list[Line]
    deltas: list[Line]
    finished: list[Line]
    dead_letters: list[Line]
    committed: dict[int, tuple[int, Json]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)


async def read_log(bootstrap_servers: str, topics: Topics, group_id: str) -> Log:
    """Read all topics, committed records only, from the beginning to the end as it is now."""
    log = Log(
        requests=await read_topic(bootstrap_servers, topics.invoke_requests),
        results=await read_topic(bootstrap_servers, topics.assistant_messages),
        deltas=await read_topic(bootstrap_servers, topics.stream_deltas),
        finished=await read_topic(bootstrap_servers, topics.finished_runs),
        dead_letters=await read_topic(bootstrap_servers, topics.dead_letters),
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        for where, offset in (await admin.list_consumer_group_offsets(group_id)).items():
            log.committed[where.partition] = (offset.offset, json.loads(offset.metadata or "{}"))
    finally:
        await admin.close()
    log.ends = await end_offsets(bootstrap_servers, topics.invoke_requests)
    return log


async def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The committed end of each partition."""
    async with _reader(bootstrap_servers) as consumer:
        partitions = await _assign(consumer, topic)
        return {where.partition: end for where, end in (await consumer.end_offsets(partitions)).items()}


async def read_topic(bootstrap_servers: str, topic: str) -> list[Line]:
    """All committed records of a topic, in log order within each partition."""
    lines: list[Line] = []
    async with _reader(bootstrap_servers) as consumer:
        partitions = await _assign(consumer, topic)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                lines.extend(
                    Line(
                        partition=record.partition,
                        offset=record.offset,
                        key=(record.key or b"").decode(errors="replace"),
                        headers={name: (value or b"").decode(errors="replace") for name, value in record.headers},
                        value=record.value or b"",
                    )
                    for record in records
                )
    return lines


def _reader(bootstrap_servers: str) -> Any:
    return log_consumer(KafkaConnection(bootstrap_servers=bootstrap_servers))


async def _assign(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    partitions = await partitions_of(consumer, topic)
    consumer.assign(partitions)
    return partitions


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic that exists. A broker may not know it yet right after it was created."""
    consumer._client.add_topic(topic)
    while not consumer.partitions_for_topic(topic):
        await consumer._client.force_metadata_update()
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]


def violations(log: Log, acknowledged: Iterable[str]) -> list[str]:
    """Every broken promise, as a sentence. Empty: all kept."""
    return [
        *_exactly_one_result(log, set(acknowledged)),
        *_in_session_order(log),
        *_transcripts(log),
        *everything_committed(log),
        *one_line_each(log),
    ]


def _exactly_one_result(log: Log, acknowledged: set[str]) -> list[str]:
    count = Counter(line.body["run_id"] for line in log.results)
    lost = [f"run {run_id} has no result" for run_id in acknowledged if not count[run_id]]
    twice = [f"run {run_id} has {n} results" for run_id, n in count.items() if n > 1]
    sent = {line.body["id"] for line in log.requests if line.value.startswith(b"{")}
    return lost + twice + [f"run {run_id} was never requested" for run_id in count if run_id not in sent]


def _in_session_order(log: Log) -> list[str]:
    place = {line.body["id"]: (line.partition, line.offset) for line in log.requests if line.value.startswith(b"{")}
    last: dict[tuple[int, str], int] = defaultdict(lambda: -1)
    found = []
    for line in log.results:
        result = line.body
        partition, offset = place.get(result["run_id"], (-1, -1))
        if line.partition != partition or result["partition"] != partition:
            found.append(
                f"the result of {result['run_id']} is in partition {line.partition}, its request in {partition}"
            )
        lane = (partition, result["session_id"])
        if result["attempt"] == 0:
            continue  # it never started, and owes nobody an order
        if offset < last[lane]:
            found.append(f"the result of {result['run_id']} stands behind a later one of its session")
        last[lane] = max(last[lane], offset)
    return found


def _transcripts(log: Log) -> list[str]:
    """Per attempt, first occurrences of `seq` are 0..n in log order; the result's attempt rebuilt gives its text."""
    events: dict[str, list[Json]] = defaultdict(list)
    best: dict[str, tuple[int, int]] = {}
    found = []
    for line in log.deltas:
        record = line.body
        seen = events[record["attempt_id"]]
        best[record["run_id"]] = max(best.get(record["run_id"], (0, 0)), (record["claim"], record["attempt"]))
        for event in record["events"]:
            if event["seq"] == len(seen):
                seen.append(event)
            elif event["seq"] > len(seen):
                found.append(f"attempt {record['attempt_id']}: seq {event['seq']} comes where {len(seen)} should")
    for line in log.results:
        result = line.body
        if result.get("attempt_id") is not None:
            found += _winning_attempt(result, events[result["attempt_id"]], best.get(result["run_id"], (0, 0)))
    return found


def _winning_attempt(result: Json, events: list[Json], best: tuple[int, int]) -> list[str]:
    name = f"run {result['run_id']}"
    found = []
    if best > (result["claim"], result["attempt"]):
        found.append(f"{name}: a reader would keep attempt {best}, the result is of another")
    if result["deltas"] != "complete":
        return found
    if len(events) != result["last_seq"] + 1:
        found.append(f"{name}: {len(events)} events on the log, last_seq is {result['last_seq']}")
    spoken = "".join(e["delta"] for e in events if e["type"] == "part.delta" and e["part_type"] == "text")
    said = "".join(
        part["content"]
        for message in result["messages"]
        if message["role"] == "assistant"
        for part in message["parts"]
        if part["type"] == "text"
    )
    if result["status"] == "completed" and spoken not in (said, ""):
        found.append(f"{name}: deltas say {spoken[:60]!r}, the result {said[:60]!r}")
    return found


def everything_committed(log: Log) -> list[str]:
    """Whether the group stands at the end of the log with nothing open."""
    found = []
    for partition, end in log.ends.items():
        offset, left = log.committed.get(partition, (0, {}))
        if offset != end:
            found.append(f"partition {partition}: committed {offset}, the log ends at {end}")
        if left.get("p"):
            found.append(f"partition {partition}: requests are still open in the metadata")
    return found


def one_line_each(log: Log) -> list[str]:
    """Whether any request has two dead letters, or two lines in the index."""
    letters = Counter(line.headers.get("agentstream-request") for line in log.dead_letters)
    lines = Counter(line.headers.get("agentstream-request") for line in log.finished)
    twice = [f"{where} has {n} dead letters" for where, n in letters.items() if n > 1]
    return twice + [f"{where} has {n} lines in the index" for where, n in lines.items() if n > 1]
