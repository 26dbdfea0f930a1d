"""Trivial runs of Pi through Kafka, as a ratio to the same sidecar driven directly: 64 at once."""

import asyncio
import time
from pathlib import Path

import pytest

from agentstream.consumers.agent_config import DEFAULT_LIMITS, WorkerAgentConfig
from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.redaction import Redactor
from agentstream.infra.offline_model import OfflineModel
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.benchmarks.frame import report
from tests.benchmarks.seeing import key_of, seeing
from tests.benchmarks.test_crowds import submit
from tests.chaos.fleet import Fleet
from tests.chaos.inside import plan_of, serving
from tests.integration.pi_fixtures import KEY, credentials, perform, request, settings

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

AT_ONCE = 64
RUNS = 640
SAYS = "[[say: ok]]"


async def directly(pi: PiHarness, model: OfflineModel, runs: int) -> float:
    """Runs a second of the harness alone."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with slots:
            await perform(pi, request(SAYS, credentials=credentials(model)))

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(runs)))
    return runs / (time.monotonic() - began)


async def through_kafka(fleet: Fleet, name: str, runs: int) -> float:
    """Runs a second from the first result that is visible to the last."""
    parameters = AgentParameters(credentials="offline")
    async with seeing(fleet.connection, fleet.topics.finished_runs, key_of, partitions=8) as seen:
        before = len(seen.at)
        await submit(
            fleet,
            [
                InvokeRequest(id=f"{name}-{n}", messages=(Message.of_text("user", SAYS),), parameters=parameters)
                for n in range(runs)
            ],
        )
        began = time.time()
        await seen.until_count(before + runs)
        return runs / (max(seen.at.values()) - began)


@pytest.mark.timeout(900)
async def test_trivial_runs_of_pi(kafka: str, topics: str, tmp_path: Path) -> None:
    async with OfflineModel() as model, PiHarness(settings(tmp_path), redactor=Redactor((KEY,))) as pi:
        config = WorkerAgentConfig(
            harnesses={"pi": pi},
            default_harness="pi",
            default_model="offline/demo",
            limits=DEFAULT_LIMITS,
            credentials={"offline": credentials(model)},
        )
        fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path)
        await directly(pi, model, AT_ONCE)  # warm
        direct = await directly(pi, model, RUNS)
        plan = plan_of(kafka, topics, config=config, harnesses={"pi": pi}, secrets=(KEY,))
        async with fleet.started(workers=0, partitions=8), serving(plan):
            await through_kafka(fleet, "warm", AT_ONCE)
            through = await through_kafka(fleet, "run", RUNS)
        again = await directly(pi, model, RUNS)
    with report("trivial runs of Pi") as page:
        page.figure("the sidecar alone, before", "runs/s", direct)
        page.figure("the sidecar alone, after", "runs/s", again)
        page.figure("through Kafka", "runs/s", through)
        page.figure("of the sidecar alone", "×", through / max(direct, again), wanted="≥ 0.7")
