"""Workers of a test, in its own process: built by the real composition root, with a harness of the test's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.partition import Partition
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.worker import Worker
from agentstream.infra.compose import WorkerPlan, open_worker
from agentstream.producers.connection import KafkaConnection
from tests.support.cluster import Cluster
from tests.support.gated import KIND, GatedHarness
from tests.support.waiting import eventually

SESSION_TIMEOUT_MS = 6_000
QUICK_SESSION_TIMEOUT_MS = 2_000
"""For tests that wait until the group forgets a worker; the engine's broker allows it."""


def plan_of(cluster: Cluster, harness: GatedHarness, *, name: str = "a", through: str | None = None) -> WorkerPlan:
    """A worker's plan. `name` is its client id; `through` the address that it connects to, such as a proxy's."""
    harnesses = {KIND: harness}
    return WorkerPlan(
        connection=KafkaConnection(bootstrap_servers=through or cluster.bootstrap_servers, client_id=name),
        topics=cluster.topics,
        group_id=cluster.group_id,
        harnesses=harnesses,
        agent_config=WorkerAgentConfig(harnesses=harnesses, default_harness=KIND),
        redactor=Redactor([]),
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=500,
    )


def quick(plan: WorkerPlan) -> WorkerPlan:
    """The same worker, whom the group forgets after two seconds of silence."""
    return replace(plan, session_timeout_ms=QUICK_SESSION_TIMEOUT_MS, heartbeat_interval_ms=300)


@dataclass(frozen=True)
class Running:
    """A worker that serves."""

    worker: Worker
    _stop: asyncio.Event
    _serving: asyncio.Task[None]

    def partition(self, number: int = 0) -> Partition | None:
        """One of its partitions, if it is assigned."""
        return next((found for found in self.worker.partitions if found.number == number), None)

    def owned(self) -> int:
        """How many partitions it has claimed."""
        return sum(partition.claim is not None for partition in self.worker.partitions)

    async def owns(self, number: int = 0) -> int:
        """Wait until it has claimed a partition; returns the claim's number."""
        await eventually(lambda: self._claim(number) is not None, f"partition {number} is claimed")
        claim = self._claim(number)
        assert claim is not None
        return claim

    def _claim(self, number: int) -> int | None:
        partition = self.partition(number)
        return None if partition is None or partition.claim is None else partition.claim.number

    async def closed(self, number: int = 0) -> str:
        """Wait until it keeps a partition closed; returns why."""
        await eventually(lambda: self._reason(number) is not None, f"partition {number} is kept closed")
        return self._reason(number) or ""

    def _reason(self, number: int) -> str | None:
        partition = self.partition(number)
        return None if partition is None else partition.closed_because

    @property
    def held(self) -> int:
        """How many requests it holds, waiting or running."""
        return self.worker._engine.intake.held

    async def full(self) -> None:
        """Wait until it takes nothing more, from any partition."""
        await eventually(lambda: self.worker._engine.intake.full, "the worker is full")

    async def held_back(self, number: int) -> None:
        """Wait until it takes nothing more from one partition, because too much of it is open."""
        await eventually(lambda: self._is_held_back(number), f"partition {number} is held back")

    def _is_held_back(self, number: int) -> bool:
        partition = self.partition(number)
        return partition is not None and partition.claim is not None and partition.claim.full

    def begin_stop(self) -> asyncio.Task[None]:
        """Stop it as SIGTERM does; the task is done once it has ended."""
        self._stop.set()
        return self._serving

    async def draining(self) -> None:
        """Wait until it takes nothing more."""
        partitions = self.worker.partitions
        await eventually(lambda: all(partition._draining for partition in partitions), "all partitions drain")

    async def stop(self) -> None:
        """Stop it and wait until it has ended."""
        await asyncio.wait({self.begin_stop()})


@asynccontextmanager
async def working(plan: WorkerPlan, *, grace_s: float = 20.0) -> AsyncIterator[Running]:
    """A worker that serves, and is stopped at the end. If it fails, so does the test."""
    stop = asyncio.Event()
    async with open_worker(plan) as worker, asyncio.TaskGroup() as group:
        serving = group.create_task(worker.serve(stop, grace_s=grace_s), name=f"worker {plan.connection.client_id}")
        try:
            yield Running(worker, stop, serving)
        finally:
            stop.set()
