"""Trivial runs of Pi through Kafka, as a ratio to the same sidecar driven directly: 64 at once.

Both begin with a sidecar that has just started, and the model is a process of its own: no worker hosts its provider.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentstream.consumers.harness.pi import PiHarness
from agentstream.infra.garbage import seldom_collected
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.benchmarks.backlog import Worked, backlog, cpu_s
from tests.benchmarks.frame import report
from tests.integration.pi_fixtures import KEY, credentials, perform, request, settings

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

AT_ONCE = 64
RUNS = 4_000
ROUNDS = 3
SAYS = "[[say: ok]]"


@asynccontextmanager
async def offline_model() -> AsyncIterator[str]:
    """A model in a process of its own; its base URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.offline_model"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def directly(home: Path, base_url: str) -> tuple[Worked, float]:
    """What the harness does alone, in this process, and the sidecar's processor time for a run in milliseconds."""
    slots = asyncio.Semaphore(AT_ONCE)
    ends = list[float]()

    async def one() -> None:
        async with slots:
            outcome = await perform(pi, request(SAYS, credentials=credentials(base_url)))
            assert outcome.text == "ok"
            ends.append(time.monotonic())

    # A worker's collector, too: with Python's own a run costs half as much again.
    with seldom_collected():
        async with PiHarness(settings(home)) as pi:
            began = time.process_time()
            assert pi.sidecar_pid is not None
            sidecar = cpu_s(pi.sidecar_pid)
            await asyncio.gather(*(one() for _ in range(RUNS)))
            sidecar = cpu_s(pi.sidecar_pid) - sidecar
    rate = RUNS / (max(ends) - min(ends))
    return Worked(per_second=rate, cpu_ms=1_000 * (time.process_time() - began) / RUNS), 1_000 * sidecar / RUNS


async def through_kafka(kafka: str, prefix: str, home: Path, base_url: str) -> Worked:
    """What a worker does with a backlog."""
    config = home / "pi.toml"
    config.write_text(
        f'[credentials.offline]\nprovider = "offline"\napi_key = {json.dumps(KEY)}\n'
        f'base_url = {json.dumps(base_url)}\napi = "openai-completions"\n'
    )
    parameters = AgentParameters(credentials="offline", model="offline/demo")
    async with backlog(kafka, prefix, home, partitions=8) as requests:
        requests.variables = {
            "AGENTSTREAM_HARNESSES": "pi",
            "AGENTSTREAM_CONFIG": str(config),
            "AGENTSTREAM_MAX_IN_FLIGHT": str(AT_ONCE),
            "TMPDIR": str(home),
        }
        asked = InvokeRequest(messages=(Message.of_text("user", SAYS),), parameters=parameters)
        await requests.send([asked] * RUNS)
        return await requests.by_worker()


@pytest.mark.timeout(900)
async def test_trivial_runs_of_pi(kafka: str, topics: str, tmp_path: Path) -> None:
    alone, worked, sidecars = list[Worked](), list[Worked](), list[float]()
    async with offline_model() as base_url:
        # In turns: another process on this machine would else weigh on one of them alone.
        for turn in range(ROUNDS):
            found, sidecar = await directly(tmp_path, base_url)
            alone.append(found)
            sidecars.append(sidecar)
            worked.append(await through_kafka(kafka, f"{topics}{turn}.", tmp_path, base_url))
    direct, through = (max(each.per_second for each in found) for found in (alone, worked))
    with report("trivial runs of Pi") as page:
        page.figure("the sidecar alone", "runs/s", direct)
        page.figure("its processor time for a run", "ms", min(sidecars))
        page.figure("the harness's in Python, driven directly", "ms", min(each.cpu_ms for each in alone))
        page.figure("through Kafka", "runs/s", through)
        page.figure("the worker's processor time for a run, with the start", "ms", min(each.cpu_ms for each in worked))
        page.figure("of the sidecar alone", "×", through / direct, wanted="≥ 0.7")
