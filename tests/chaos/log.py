"""What the topics hold, read from offset 0: committed records only, and nothing of the engine's own bookkeeping."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agentstream.consumers.kafka import Consumer, log_consumer
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics
from tests.chaos.commits import Commit, commit_of, generation_of
from tests.chaos.transcripts import Transcripts

Json = dict[str, Any]
GROUP_OFFSETS = "__consumer_offsets"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One record of a log, decoded."""

    partition: int
    offset: int
    key: str
    headers: dict[str, str]
    value: bytes
    timestamp_ms: int = 0
    """When its producer sent it."""

    @property
    def body(self) -> Json:
        parsed: Json = json.loads(self.value)
        return parsed

    @property
    def request(self) -> tuple[int, int] | None:
        """Partition and offset of the request it came of, as its header says."""
        parts = self.headers.get("agentstream-request", "").rsplit("/", 2)
        return (int(parts[1]), int(parts[2])) if len(parts) == 3 else None

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(kw_only=True)
class Log:
    """Everything the topics hold."""

    requests: list[Line]
    results: list[Line]
    deltas: list[Line]
    finished: list[Line]
    dead_letters: list[Line]
    controls: list[Line] | None = None
    """None: not read, and no cancelled result is doubted."""
    transcripts: Transcripts | None = None
    """What the deltas tell; None: to be made of `deltas`."""
    commits: list[Commit] = field(default_factory=list)
    """Every offset that the group committed and its metadata, oldest first within a partition."""
    committed: dict[int, tuple[int, Json]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    stable: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By topic/partition: where read_committed readers stop, and where the log ends."""

    def told(self) -> Transcripts:
        """What the deltas tell of each attempt."""
        if self.transcripts is not None:
            return self.transcripts
        told = Transcripts()
        for line in self.deltas:
            told.add(line.body, str(line))
        return told


async def read_log(
    bootstrap_servers: str, topics: Topics, group_id: str, *, large: bool = False, commits: bool = True
) -> Log:
    """Read all topics, committed records only, from the beginning to the end as it is now.

    `large`: deltas are folded while they are read, and `deltas` stays empty: of 100,000 runs they are two gigabytes.
    `commits`: also all that the group ever committed; not where an operator has set its offsets.
    """
    told, deltas = Transcripts(), list[Line]()
    async for line in lines_of(bootstrap_servers, topics.stream_deltas):
        if large:
            told.add(line.body, str(line))
        else:
            deltas.append(line)
    log = Log(
        requests=await read_topic(bootstrap_servers, topics.invoke_requests),
        results=await read_topic(bootstrap_servers, topics.assistant_messages),
        deltas=deltas,
        transcripts=told if large else None,
        finished=await read_topic(bootstrap_servers, topics.finished_runs),
        dead_letters=await read_topic(bootstrap_servers, topics.dead_letters),
        controls=await read_topic(bootstrap_servers, topics.control),
        ends=await end_offsets(bootstrap_servers, topics.invoke_requests),
        stable=await stable_ends(bootstrap_servers, (topics.invoke_requests, *topics.outputs)),
    )
    if commits:
        log.commits = await read_commits(bootstrap_servers, topics, group_id)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        for where, offset in (await admin.list_consumer_group_offsets(group_id)).items():
            log.committed[where.partition] = (offset.offset, json.loads(offset.metadata or "{}"))
    finally:
        await admin.close()
    return log


async def read_topic(bootstrap_servers: str, topic: str) -> list[Line]:
    """All committed records of a topic, in log order within each partition."""
    return [line async for line in lines_of(bootstrap_servers, topic)]


async def lines_of(bootstrap_servers: str, topic: str) -> AsyncIterator[Line]:
    """All committed records of a topic, one by one."""
    async for record in _records(bootstrap_servers, topic):
        yield Line(
            partition=record.partition,
            offset=record.offset,
            key=(record.key or b"").decode(errors="replace"),
            headers={sys.intern(name): (value or b"").decode(errors="replace") for name, value in record.headers},
            value=record.value or b"",
            timestamp_ms=record.timestamp,
        )


async def read_commits(bootstrap_servers: str, topics: Topics, group_id: str) -> list[Commit]:
    """What the group committed for the input topic and was not rolled back, from the brokers' own topic."""
    wanted = (group_id, topics.invoke_requests)
    await decided(bootstrap_servers, GROUP_OFFSETS)
    found, generation, since_ms = list[Commit](), 0, 0
    async for raw in _records(bootstrap_servers, GROUP_OFFSETS, group_id):
        if (begun := generation_of(raw, group_id)) is not None and begun != generation:
            generation, since_ms = begun, raw.timestamp
        if (commit := commit_of(raw, wanted)) is not None:
            found.append(replace(commit, generation=generation, generation_ms=since_ms))
    return found


async def decided(bootstrap_servers: str, topic: str) -> None:
    """Wait until every transaction is ended that is open in a topic now.

    All groups share a topic of offsets: what a worker left open that was killed hides everyone's commits behind it from
    read_committed readers, until the broker ends it. A test once read no commits at all, of two owners.
    """
    async with reader(bootstrap_servers) as committed, reader(bootstrap_servers, read_committed=False) as every:
        ends = await every.end_offsets(partitions := await _assign(committed, topic))
        while any(stable < ends[where] for where, stable in (await committed.end_offsets(partitions)).items()):
            await asyncio.sleep(0.1)


async def _records(bootstrap_servers: str, topic: str, group_id: str | None = None) -> AsyncIterator[Any]:
    """A topic's records; of a group's name, those of the partition where the brokers keep that group."""
    async with reader(bootstrap_servers) as consumer:
        partitions = await partitions_of(consumer, topic)
        if group_id is not None:
            partitions = [partitions[java_hash(group_id) % len(partitions)]]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    yield record


def java_hash(text: str) -> int:
    """`Math.abs("text".hashCode())`: how brokers choose a group's partition."""
    number = 0
    for letter in text:
        number = (31 * number + ord(letter)) & 0xFFFFFFFF
    return number if number < 2**31 else 2**32 - number


async def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The committed end of each partition."""
    async with reader(bootstrap_servers) as consumer:
        partitions = await _assign(consumer, topic)
        return {where.partition: end for where, end in (await consumer.end_offsets(partitions)).items()}


async def stable_ends(bootstrap_servers: str, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Where read_committed readers stop, and where the log ends, of each partition."""
    found: dict[str, tuple[int, int]] = {}
    async with reader(bootstrap_servers) as committed, reader(bootstrap_servers, read_committed=False) as every:
        for name in names:
            partitions = await _assign(committed, name)
            high = await every.end_offsets(partitions)
            for where, stable in (await committed.end_offsets(partitions)).items():
                found[f"{name}/{where.partition}"] = (stable, high[where])
    return found


@asynccontextmanager
async def reader(bootstrap_servers: str, *, read_committed: bool = True) -> AsyncIterator[Consumer]:
    """A reader without a group, with nothing assigned yet."""
    connection = KafkaConnection(bootstrap_servers=bootstrap_servers)
    async with log_consumer(connection, read_committed=read_committed) as consumer:
        yield consumer


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
