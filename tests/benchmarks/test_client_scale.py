"""Ten thousand callers who wait in one process: memory, latency, cancellation. They share one pair of consumers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.client import AgentClient
from tests.benchmarks.frame import report
from tests.chaos.fleet import Fleet
from tests.support.callers import playing

pytestmark = [pytest.mark.bench, pytest.mark.kafka, pytest.mark.timeout(900)]

CALLERS = int(os.environ.get("BENCH_CALLERS", "10000"))
AT_ONCE = 200
"""Calls that begin at once: what is measured is waiting, not how fast a request can be made."""
CANCELS = 200
MIB = 1024 * 1024


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give workers that take them all at once, and more."""
    environment = {"AGENTSTREAM_MAX_IN_FLIGHT": "10000"}
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path, environment=environment)
    async with fleet.started(workers=2, partitions=8):
        yield fleet


def connections() -> int:
    return len(psutil.Process().net_connections(kind="tcp"))


async def answered_in(client: AgentClient, times: int) -> list[float]:
    """Milliseconds from the call to the answer of runs that take no time, one after the other."""
    took = list[float]()
    for _ in range(times):
        began = time.monotonic()
        await client.invoke("hi", parameters=playing(text="two words"), timeout=120, check=True)
        took.append(1_000 * (time.monotonic() - began))
    return took


async def test_ten_thousand_callers_wait_in_one_process(fleet: Fleet) -> None:
    process = psutil.Process()
    async with AgentClient(fleet.bootstrap_servers, topic_prefix=fleet.prefix) as client:
        alone = (await answered_in(client, 120))[20:]
        before, tasks, sockets = process.memory_info().rss, len(asyncio.all_tasks()), connections()
        slots = asyncio.Semaphore(AT_ONCE)
        begun, ended = 0, list[float]()

        async def call(number: int) -> None:
            nonlocal begun
            async with slots:
                submitted = await client.submit("hi", run_id=f"waits-{number}", parameters=hangs)
                begun += 1
            result = await client.wait(submitted, timeout=600)
            ended.append(time.monotonic())
            assert result.status == "cancelled"

        hangs = playing(text="two words", hang="mid_text")
        callers = [asyncio.create_task(call(number)) for number in range(CALLERS)]
        while begun < CALLERS:
            await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        waiting = process.memory_info().rss
        more_tasks, more_sockets = len(asyncio.all_tasks()) - tasks, connections() - sockets
        among = await answered_in(client, 100)
        cancels = list[float]()
        for number in range(CANCELS):
            began = time.monotonic()
            await client.cancel(f"waits-{number}")
            await callers[number]
            cancels.append(1_000 * (time.monotonic() - began))
        began = time.monotonic()
        await asyncio.gather(*(client.cancel(f"waits-{number}") for number in range(CANCELS, CALLERS)))
        await asyncio.gather(*callers)
        all_gone = time.monotonic() - began
    with report(f"{CALLERS:,} callers in one process") as page:
        floor = page.distribution("a call, nobody else waits", "ms", alone)
        page.distribution("a call, while all of them wait", "ms", among, floor=floor)
        page.distribution("cancel to result, one after the other", "ms", cancels)
        page.figure("all the others cancelled at once: results/s", "results/s", (CALLERS - CANCELS) / all_gone)
        page.figure("memory of a caller who waits", "KiB", (waiting - before) / 1024 / CALLERS)
        page.figure("memory of the process with all of them", "MiB", waiting / MIB)
        page.figure("tasks of a caller who waits", "tasks", more_tasks / CALLERS)
        page.figure("connections more than for one caller", "", more_sockets)
