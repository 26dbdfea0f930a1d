"""A worker inside the test's own process, for tests that need no killing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.worker import Worker
from agentstream.infra.compose import WorkerPlan, open_worker
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics


def plan_of(
    bootstrap_servers: str,
    prefix: str,
    *,
    config: WorkerAgentConfig | None = None,
    harnesses: Mapping[str, Harness] | None = None,
    secrets: tuple[str, ...] = (),
) -> WorkerPlan:
    """A worker with the scripted harness, and timeouts short enough for tests."""
    allowed = harnesses or {"scripted": ScriptedHarness()}
    return WorkerPlan(
        connection=KafkaConnection(bootstrap_servers=bootstrap_servers),
        topics=Topics(prefix=prefix),
        group_id=f"{prefix}workers",
        harnesses=allowed,
        agent_config=config or WorkerAgentConfig(harnesses=allowed, default_harness=next(iter(allowed))),
        redactor=Redactor(secrets),
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


@asynccontextmanager
async def serving(plan: WorkerPlan, *, grace_s: float = 5.0) -> AsyncIterator[Worker]:
    """The worker serves while the body runs; then it is stopped as by SIGTERM."""
    stop = asyncio.Event()
    async with open_worker(plan) as worker:
        task = asyncio.create_task(worker.serve(stop, grace_s=grace_s), name="worker")
        try:
            yield worker
        finally:
            stop.set()
            await task
