"""A backlog of requests, worked off by a worker or by a bare loop, each alone and in a process of its own.

Nobody reads along: a reader in the same two cores would be measured with it. What was done stands on the log, and the
rate is the number of records over the time between the first and the last one's timestamps.
"""

import asyncio
import random
import resource
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import psutil
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agentstream.consumers.kafka import log_consumer
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest, StreamMode
from agentstream.schemas.topics import MAX_REQUEST_BYTES, Topics
from tests.benchmarks.bare_loop import beside
from tests.integration.test_cli import Terminal

Floor = Literal["copy", "results", "runs"]
"""Modes of the bare loop."""

SESSIONS = 1_000
WAVE = 500
"""Requests that are on their way to the broker at once; never two of one session."""
LOOK_SECONDS = 0.5
"""How often it is looked whether all is done: the looks are answered by the broker that is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """How a backlog was worked off."""

    per_second: float
    """Records of output (one for each request) a second; 0 for a single one."""
    cpu_ms: float
    """Processor time of the process for each request, in milliseconds, its start included."""
    life_ms: float = 0.0
    """Processor time of its whole life in milliseconds, all its threads: start, end and the last export included.

    0 of what was no process of its own.
    """


@dataclass(kw_only=True)
class Backlog:
    """Topics under a prefix with requests on them. Made by `backlog`."""

    bootstrap_servers: str
    topics: Topics
    partitions: int
    home: Path
    requests: int = 0
    """How many stand on the topic."""
    variables: dict[str, str] = field(default_factory=dict)
    """Settings of the worker beyond the usual ones."""

    @property
    def connection(self) -> KafkaConnection:
        """A way to the broker."""
        return KafkaConnection(bootstrap_servers=self.bootstrap_servers, client_id="benchmark")

    async def fill(self, requests: int, *, stream: StreamMode, seed: int = 1) -> None:
        """Put requests on the topic: of 1,000 sessions, each with 0 to 5 ms of work between two deltas."""
        dice = random.Random(seed)
        await self.send([self._request(number, dice, stream) for number in range(requests)])

    async def send(self, requests: Sequence[InvokeRequest]) -> None:
        """Put these on the topic."""
        await submit(self.connection, self.topics, requests)
        self.requests += len(requests)

    def _request(self, number: int, dice: random.Random, stream: StreamMode) -> InvokeRequest:
        choice = HarnessChoice(kind="scripted", options={"text": "two words", "delay_ms": dice.randint(0, 5)})
        return InvokeRequest(
            session_id=f"session-{number % SESSIONS}",
            messages=(Message.of_text("user", "hi"),),
            parameters=AgentParameters(harness=choice, stream=stream),
        )

    async def by_worker(self) -> Worked:
        """Have a worker work it off, exactly once. As by default it logs two lines a run, here to /dev/null."""
        terminal = Terminal(home=self.home, variables=self._settings())
        return await self._by(
            ("-m", "agentstream.infra.cli", "worker"), terminal.environment, self.topics.assistant_messages
        )

    async def by_bare_loop(self, mode: Floor = "copy") -> Worked:
        """Have a bare consume → transactional produce loop write a record for each to another topic: the floor."""
        to = _floor_topic(self.topics.prefix, mode)
        arguments = ("-m", "tests.benchmarks.bare_loop", mode, self.bootstrap_servers, self.topics.invoke_requests, to)
        return await self._by(arguments, {}, to)

    async def _by(self, arguments: tuple[str, ...], environment: Mapping[str, str], to: str) -> Worked:
        before = _children_ms()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self.home if environment else None,
            env=environment or None,
        )
        try:
            times = await self._times(to, process)
            used_s = cpu_s(process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
        seconds = (max(times) - min(times)) / 1_000
        return Worked(
            per_second=self.requests / seconds if seconds else 0.0,
            cpu_ms=1_000 * used_s / self.requests,
            life_ms=_children_ms() - before,
        )

    async def _times(self, topic: str, process: asyncio.subprocess.Process) -> list[int]:
        """When each record of a topic was sent, once there is one for each request. Raises if the process ends."""
        times = list[int]()
        async with log_consumer(self.connection) as consumer:
            where = [TopicPartition(topic, number) for number in range(self.partitions)]
            consumer.assign(where)
            while len(times) < self.requests:
                if process.returncode is not None:
                    raise AssertionError(f"the process ended with {process.returncode} after {len(times)} records")
                await asyncio.sleep(LOOK_SECONDS)
                # Ends count the markers of transactions as well: above them, read only near the end.
                ends = await consumer.end_offsets(where)
                if sum(ends.values()) < self.requests:
                    continue
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    times.extend(record.timestamp for record in records)
        assert len(times) == self.requests, "exactly one record of output for each request"
        return times

    def _settings(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "AGENTSTREAM_TOPIC_PREFIX": self.topics.prefix,
            "AGENTSTREAM_GROUP_ID": f"{self.topics.prefix}workers",
            "AGENTSTREAM_HARNESSES": "scripted",
            **self.variables,
        }


async def submit(
    connection: KafkaConnection, topics: Topics, requests: Iterable[InvokeRequest], *, wave: int = WAVE
) -> None:
    """Put requests on the topic, so many at once; never more of them in memory."""
    left = iter(requests)
    producer = RequestProducer(lambda: idempotent_producer(connection, max_request_size=MAX_REQUEST_BYTES), topics)
    async with producer:
        while some := list(islice(left, wave)):
            await asyncio.gather(*map(producer.submit, some))


def cpu_s(pid: int) -> float:
    """Processor time of a process until now, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _children_ms() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1_000 * (used.ru_utime + used.ru_stime)


def _floor_topic(prefix: str, mode: Floor) -> str:
    return f"{prefix}bare.{mode}"


@asynccontextmanager
async def backlog(bootstrap_servers: str, prefix: str, home: Path, *, partitions: int) -> AsyncIterator[Backlog]:
    """Fresh topics under a prefix, deleted at the end: a broker that keeps them is slower for what is measured next."""
    topics = Topics(prefix=prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        plans = [(plan.name, plan.partitions, plan.max_message_bytes) for plan in topics.plan(partitions)]
        floors = [_floor_topic(prefix, mode) for mode in get_args(Floor)]
        floors += beside(_floor_topic(prefix, "runs"))
        plans += [(name, partitions, MAX_REQUEST_BYTES) for name in floors]
        await admin.create_topics(
            [NewTopic(name, count, 1, topic_configs={"max.message.bytes": str(size)}) for name, count, size in plans]
        )
        yield Backlog(bootstrap_servers=bootstrap_servers, topics=topics, partitions=partitions, home=home)
        await admin.delete_topics([name for name, _, _ in plans])
    finally:
        await admin.close()
