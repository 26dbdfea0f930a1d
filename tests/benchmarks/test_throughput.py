"""10,000 requests through one worker, exactly once, as a ratio to a bare consume → transactional produce loop."""

import os
from pathlib import Path

import pytest

from agentstream.schemas.requests import StreamMode
from tests.benchmarks.backlog import Worked, backlog
from tests.benchmarks.frame import report

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
WANTED: dict[StreamMode, float] = {"full": 0.25, "none": 0.45}
"""Of the bare loop's rate, on two cores for worker and broker: shown, since others may use them."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("partitions", [1, 8])
async def test_throughput(kafka: str, topics: str, tmp_path: Path, partitions: int) -> None:
    bare, written, left = list[Worked](), list[Worked](), list[Worked]()
    found: dict[StreamMode, list[Worked]] = {"full": [], "none": []}
    with report(f"throughput, {partitions} partition{'s' * (partitions > 1)}") as page:
        # In turns: another process on this machine would else weigh on one of them alone.
        for turn in range(ROUNDS):
            for stream, worked in found.items():
                prefix = f"{topics}{partitions}-{turn}-{stream}."
                async with backlog(kafka, prefix, tmp_path, partitions=partitions) as requests:
                    await requests.fill(REQUESTS, stream=stream)
                    bare.append(await requests.by_bare_loop())
                    written.append(await requests.by_bare_loop("results"))
                    left.append(await requests.by_bare_loop("runs"))
                    worked.append(await requests.by_worker())
        floor = max(each.per_second for each in bare)
        page.figure("bare loop", "records/s", floor)
        page.figure(
            "bare loop that writes results of the same size", "records/s", max(each.per_second for each in written)
        )
        most = max(each.per_second for each in left)
        page.figure("bare loop that writes all that a streamed run leaves", "runs/s", most)
        page.figure("bare loop, processor time for a record, with the start", "ms", min(each.cpu_ms for each in bare))
        for stream, worked in found.items():
            best = max(each.per_second for each in worked)
            page.figure(f"stream: {stream}", "runs/s", best)
            page.figure(
                f"stream: {stream}, processor time for a run, with the start", "ms", min(each.cpu_ms for each in worked)
            )
            page.figure(f"stream: {stream}, of the bare loop", "×", best / floor, wanted=f"≥ {WANTED[stream]}")
            if stream == "full":
                page.figure(f"stream: {stream}, of the loop that writes all that a run leaves", "×", best / most)
    assert floor > 0
