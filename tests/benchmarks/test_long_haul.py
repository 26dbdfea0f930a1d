"""What a worker holds while 200,000 requests pass: memory, tasks, and the metadata of its commits."""

import asyncio
import gc
import os
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.coordinator import GroupCoordinator
from tests.benchmarks.backlog import backlog
from tests.benchmarks.frame import report
from tests.chaos.inside import plan_of, serving

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

REQUESTS = int(os.environ.get("BENCH_LONG_HAUL", "200000"))
"""The window of finished runs, 10,000 in each partition, is full after 80,000: memory grows until then, and no more."""
PARTITIONS = 8
MIB = 1024 * 1024


@pytest.mark.timeout(1_800)
async def test_two_hundred_thousand_requests(kafka: str, topics: str, tmp_path: Path) -> None:
    process = psutil.Process()
    seen = list[tuple[int, float, int]]()
    longest = 0
    async with backlog(kafka, topics, tmp_path, partitions=PARTITIONS) as requests:
        await requests.fill(REQUESTS, stream="full")
        async with (
            GroupCoordinator(requests.connection, f"{topics}workers") as group,
            serving(plan_of(kafka, topics)),
        ):
            done = 0
            while done < REQUESTS:
                await asyncio.sleep(0.5)
                committed = [
                    await group.committed(requests.topics.invoke_requests, number) for number in range(PARTITIONS)
                ]
                done = sum(max(0, each.offset) for each in committed)
                longest = max([longest, *(len(each.metadata) for each in committed)])
                seen.append((done, process.memory_info().rss / MIB, len(asyncio.all_tasks())))
    gc.collect()
    with report("long haul") as page:
        for share in (0.1, 0.5, 1.0):
            at, rss, tasks = next(each for each in seen if each[0] >= share * REQUESTS)
            page.figure(f"memory after {at:,}", "MiB", rss)
            page.figure(f"tasks after {at:,}", "tasks", tasks)
        page.figure("longest metadata of a commit", "characters", longest, wanted="≤ 4096")
        page.distribution("memory meanwhile", "MiB", [rss for _, rss, _ in seen])
        page.distribution("tasks meanwhile", "tasks", [float(tasks) for *_, tasks in seen])
    assert longest <= 4_096
