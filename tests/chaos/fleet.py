"""Workers as processes of their own, to be killed, stopped and woken; and a load for them."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.kafka import Consumer, log_consumer
from agentstream.infra.topics import apply_topics
from agentstream.infra.worker_process import STARTED
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer, Submitted
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES, Topics
from tests.chaos.audit import partitions_of

SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_INTERVAL_MS = 1_000
WORKER = (sys.executable, "-m", "agentstream.infra.cli", "worker")


@dataclass(kw_only=True)
class Fleet:
    """Workers of one group, all with the scripted harness."""

    bootstrap_servers: str
    prefix: str
    logs: Path
    command: tuple[str, ...] = WORKER
    """What a worker's process runs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of every worker, over the defaults."""
    way: Callable[[int], Awaitable[str]] | None = None
    """The bootstrap servers of each worker, by its number; None: the brokers themselves."""
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)
    told_to_stop: set[int] = field(default_factory=set)

    @property
    def group_id(self) -> str:
        return f"{self.prefix}workers"

    @property
    def topics(self) -> Topics:
        return Topics(prefix=self.prefix)

    @property
    def connection(self) -> KafkaConnection:
        return KafkaConnection(bootstrap_servers=self.bootstrap_servers)

    @asynccontextmanager
    async def started(self, *, workers: int, partitions: int) -> AsyncIterator[None]:
        """Make the topics and start the workers; at the end every worker that lives is killed."""
        await apply_topics(self.connection, self.topics, partitions=partitions)
        try:
            for _ in range(workers):
                await self.start_worker()
            yield
        finally:
            for worker in self.workers:
                if worker.returncode is None:
                    worker.send_signal(signal.SIGCONT)
                    worker.kill()
                await worker.wait()

    async def start_worker(self, **environment: str) -> asyncio.subprocess.Process:
        """Start one more worker, with these variables over the fleet's; its log is a file of its own."""
        number = len(self.workers)
        servers = self.bootstrap_servers if self.way is None else await self.way(number)
        variables = {**self._variables(), "KAFKA_BOOTSTRAP_SERVERS": servers, **self.environment, **environment}
        with (self.logs / f"worker-{number}.log").open("wb") as log:
            worker = await asyncio.create_subprocess_exec(*self.command, stdout=log, stderr=log, env=variables)
        self.workers.append(worker)
        return worker

    async def stop_worker(self, number: int) -> None:
        """SIGTERM, once the worker serves: before it has set its handlers up the signal would just end it.

        Never twice: the second one ends a worker at once, in the middle of its clean stop.
        """
        if number in self.told_to_stop:
            return
        self.told_to_stop.add(number)
        while STARTED.encode() not in (self.logs / f"worker-{number}.log").read_bytes():
            await asyncio.sleep(0.05)
        self.workers[number].terminate()

    def _variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "AGENTSTREAM_TOPIC_PREFIX": self.prefix,
            "AGENTSTREAM_GROUP_ID": self.group_id,
            "AGENTSTREAM_HARNESSES": "scripted",
            "AGENTSTREAM_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
            "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": str(HEARTBEAT_INTERVAL_MS),
            "AGENTSTREAM_GRACE_SECONDS": "2",
        }

    async def submit(self, count: int, *, sessions: int, delay_ms: int = 10, words: int = 8) -> list[Submitted]:
        """Put requests on the topic, in order within each session, and wait until the brokers hold them."""
        options: dict[str, JsonValue] = {
            "text": " ".join(f"word{number}" for number in range(words)),
            "delay_ms": delay_ms,
        }
        parameters = AgentParameters(harness=HarnessChoice(kind="scripted", options=options))
        submitted = []
        async with RequestProducer(
            lambda: idempotent_producer(self.connection, max_request_size=MAX_REQUEST_BYTES), self.topics
        ) as producer:
            for first in range(0, count, sessions):
                # One request of each session at a time: a session's order is the order in which they were sent.
                wave = [
                    InvokeRequest(
                        session_id=f"session-{number % sessions}",
                        messages=(Message.of_text("user", f"request {number}"),),
                        parameters=parameters,
                    )
                    for number in range(first, min(first + sessions, count))
                ]
                submitted += await asyncio.gather(*(producer.submit(request) for request in wave))
        return submitted

    @asynccontextmanager
    async def results(self) -> AsyncIterator["Results"]:
        """A read_committed reader that is there all the time."""
        async with log_consumer(self.connection) as consumer:
            consumer.assign(await partitions_of(consumer, self.topics.assistant_messages))
            yield Results(consumer)


class Results:
    """Notes results as they become visible. The test's own time-out is the bound of every wait."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._run_ids: list[str] = []

    async def until(self, count: int) -> None:
        """Wait until so many results were seen."""
        while len(self._run_ids) < count:
            await self._poll()

    async def until_run(self, run_id: str) -> None:
        """Wait until the result of this run was seen."""
        while run_id not in self._run_ids:
            await self._poll()

    async def values(self) -> list[bytes]:
        """What came within half a second."""
        batches = await self._consumer.getmany(timeout_ms=500)
        return [record.value for records in batches.values() for record in records]

    async def _poll(self) -> None:
        self._run_ids += [json.loads(value)["run_id"] for value in await self.values()]


@asynccontextmanager
async def fleet_of(
    bootstrap_servers: str, prefix: str, logs: Path, *, workers: int, partitions: int
) -> AsyncIterator[Fleet]:
    """Topics and workers; at the end every worker that lives is killed."""
    fleet = Fleet(bootstrap_servers=bootstrap_servers, prefix=prefix, logs=logs)
    async with fleet.started(workers=workers, partitions=partitions):
        yield fleet
