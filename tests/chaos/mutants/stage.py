"""Where a scenario plays: one partition, workers as processes, each behind a proxy of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from pydantic import JsonValue

from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from tests.chaos.audit import Line, read_log, read_topic, violations
from tests.chaos.fleet import Fleet
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api
from tests.support.proxy import KafkaProxy
from tests.support.waiting import eventually

QUICK = {"AGENTSTREAM_SESSION_TIMEOUT_MS": "2000", "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "300"}
"""The group forgets a worker after two seconds of silence; the broker must allow it."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A worker's process, and the proxy before it."""

    name: str
    """Its part in the scenario."""
    number: int
    """Its place in the fleet."""
    proxy: KafkaProxy
    """Its way to the brokers, and no other worker's."""
    log: Path
    """What it prints."""

    def said(self, words: str) -> int:
        """How often its log says this."""
        return self.log.read_text(errors="replace").count(words)

    async def says(self, words: str) -> None:
        """Wait until its log says this."""
        await eventually(lambda: self.said(words) > 0, f"{self.name} says {words!r}")

    async def owns(self) -> None:
        """Wait until it has claimed the partition."""
        await self.says("partition 0 is ours: claim")

    async def calls(self, api: Api, *, since: int) -> None:
        """Wait until it makes such a call; `since` is an earlier `len(proxy.calls)`."""
        calls = self.proxy.calls
        await eventually(lambda: any(call.api == api for call in calls[since:]), f"{self.name} calls {api.name}")


@dataclass(kw_only=True)
class Stage:
    """What a scenario acts on. Made by `stage_of`."""

    cluster: Cluster
    """The topics, and what callers and operators do to them."""
    fleet: Fleet
    """The workers' processes."""
    proxies: list[KafkaProxy]
    """One for each worker."""
    acknowledged: list[str] = field(default_factory=list)
    """Runs that owe a result."""
    killed: set[int] = field(default_factory=set)
    """Workers that a scenario killed."""
    expired: list[Line] = field(default_factory=list)
    """Lines of the index of finished runs that stood there once."""

    async def play(self, scenario: "Callable[[Stage], Awaitable[None]]") -> None:
        """Play it to its end. Raises AssertionError, in a group, as soon as a worker has ended by itself."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._notice_deaths(), name="notice deaths")
            await scenario(self)
            watching.cancel()

    async def _notice_deaths(self) -> None:
        while True:
            for number, worker in enumerate(self.fleet.workers):
                if worker.returncode is not None and number not in self.fleet.told_to_stop | self.killed:
                    last = self._log(number).read_text(errors="replace").splitlines()[-1:]
                    raise AssertionError(f"worker {number} ended by itself with {worker.returncode}: {last}")
            await asyncio.sleep(0.2)

    async def worker(self, name: str, **environment: str) -> Actor:
        """Start a worker; it is not awaited."""
        await self.fleet.start_worker(**environment)
        number = len(self.fleet.workers) - 1
        return Actor(name=name, number=number, proxy=self.proxies[number], log=self._log(number))

    def _log(self, number: int) -> Path:
        return self.fleet.logs / f"worker-{number}.log"

    async def stop(self, *actors: Actor) -> None:
        """SIGTERM, and wait until they have ended."""
        for actor in actors:
            await self.fleet.stop_worker(actor.number)
        for actor in actors:
            await self.fleet.workers[actor.number].wait()

    async def kill(self, actor: Actor) -> None:
        """Kill -9."""
        self.killed.add(actor.number)
        self.fleet.workers[actor.number].kill()
        await self.fleet.workers[actor.number].wait()

    async def submit(self, run_id: str, options: Mapping[str, JsonValue], *, session: str | None = None) -> None:
        """Put a request for the scripted harness on the topic."""
        request = InvokeRequest(
            id=run_id,
            session_id=session,
            messages=(Message.of_text("user", "hi"),),
            parameters=AgentParameters(harness=HarnessChoice(kind="scripted", options=dict(options))),
        )
        await self.cluster.send(request)
        self.acknowledged.append(run_id)

    def results(self, run_id: str) -> int:
        """How many results of a run were seen."""
        return sum(result.run_id == run_id for result in self.cluster.tail.results)

    async def verdict(self) -> list[str]:
        """What the checker says of the log."""
        log = await read_log(self.cluster.bootstrap_servers, self.cluster.topics, self.cluster.group_id)
        log.finished = self.expired + log.finished
        return violations(log, self.acknowledged)

    async def expire_index(self) -> None:
        """Delete all lines of the index of finished runs, as its retention does. The checker keeps them in mind."""
        topic = self.cluster.topics.finished_runs
        self.expired += await read_topic(self.cluster.bootstrap_servers, topic)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap_servers)
        await admin.start()
        try:
            end = await self.cluster.end_of(topic)
            await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(end)})
        finally:
            await admin.close()


async def either(*conditions: Callable[[], bool]) -> None:
    """Wait until one holds: what the engine does, or what a mutant does in its place."""
    await eventually(lambda: any(condition() for condition in conditions), "one of two outcomes")


@asynccontextmanager
async def stage_of(
    bootstrap_servers: str, prefix: str, logs: Path, command: tuple[str, ...] | None
) -> AsyncIterator[Stage]:
    """Fresh topics; workers run `command`, or the real command line. Who lives at the end is killed."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(cluster_of(bootstrap_servers, prefix))
        proxies: list[KafkaProxy] = []

        async def way(_: int) -> str:
            proxies.append(await stack.enter_async_context(KafkaProxy(bootstrap_servers)))
            return proxies[-1].bootstrap_servers

        fleet = Fleet(bootstrap_servers=bootstrap_servers, prefix=prefix, logs=logs, environment=QUICK, way=way)
        if command is not None:
            fleet.command = command
        await stack.enter_async_context(fleet.started(workers=0, partitions=1))
        yield Stage(cluster=cluster, fleet=fleet, proxies=proxies)


def of_a_newer_version(metadata: str) -> str:
    """Commit metadata as a later release may write it."""
    return json.dumps({"v": 2, "state": metadata})
