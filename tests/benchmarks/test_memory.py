"""What remembering costs: finished runs in a worker and in a client, and a flood of control records."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from uuid_utils.compat import uuid7

from agentstream.consumers.client.finished import FinishedRuns
from agentstream.consumers.control import MAX_REASONS, Tombstones
from agentstream.consumers.health import Health
from agentstream.consumers.index import WINDOW, KnownRuns
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.requests import CancelRun
from agentstream.schemas.results import FinishedRun
from agentstream.schemas.topics import MAX_REQUEST_BYTES, Topics
from tests.benchmarks.frame import report
from tests.chaos.fleet import Fleet
from tests.support.cluster import Cluster, cluster_of
from tests.support.gated import GatedHarness
from tests.support.waiting import eventually, patience
from tests.support.workers import plan_of, working

pytestmark = pytest.mark.bench

PARTITIONS = 8
FLOOD = 100_000
MIB = 1024 * 1024


def held_by(make: Callable[[], object]) -> int:
    """Bytes that Python allocated for what is made."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return size


@pytest.fixture
async def clusters(kafka: str, topics: str) -> AsyncIterator[tuple[Cluster, Cluster]]:
    """Give two sets of topics with eight partitions."""
    async with (
        cluster_of(kafka, f"{topics}a.", partitions=PARTITIONS) as one,
        cluster_of(kafka, f"{topics}b.", partitions=PARTITIONS) as other,
    ):
        yield one, other


async def send(connection: KafkaConnection, topic: str, partition: int, records: list[tuple[str, bytes]]) -> None:
    async with idempotent_producer(connection, max_request_size=MAX_REQUEST_BYTES) as producer:
        futures = [await producer.send(topic, value, key=key.encode(), partition=partition) for key, value in records]
        await asyncio.gather(*futures)


async def memory_of_a_worker(cluster: Cluster, logs: Path, *, read: str = "runs are to be cancelled") -> float:
    """MiB of a worker in a process of its own, once it owns its partitions and logged `read` of the control topic."""
    logs.mkdir()
    fleet = Fleet(bootstrap_servers=cluster.bootstrap_servers, prefix=cluster.topics.prefix, logs=logs)
    process = await fleet.start_worker()
    try:
        async with patience():
            while (log := (logs / "worker-0.log").read_text()).count(" is ours") < PARTITIONS or read not in log:
                await asyncio.sleep(0.2)
        return psutil.Process(process.pid).memory_info().rss / MIB
    finally:
        process.kill()
        await process.wait()


def remembered_runs() -> KnownRuns:
    known = KnownRuns()
    for number in range(2 * WINDOW):
        run_id = str(uuid7())
        known.begin(run_id, f"{number:016x}")
        known.finish(run_id)
    return known


async def test_the_window_of_finished_runs(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    empty, full = clusters
    with report("memory of the duplicate window") as page:
        size = held_by(remembered_runs)
        page.figure("a remembered run in a worker", "bytes", size / WINDOW)
        page.figure(f"a window of {WINDOW:,} runs: one partition", "MiB", size / MIB)
        for partition in range(PARTITIONS):
            await send(full.connection, full.topics.finished_runs, partition, lines(2 * WINDOW))
        without = await memory_of_a_worker(empty, tmp_path / "empty")
        with_windows = await memory_of_a_worker(full, tmp_path / "full")
        page.figure(f"a worker of {PARTITIONS} empty partitions", "MiB resident", without)
        page.figure(f"a worker of {PARTITIONS} full windows", "MiB resident", with_windows)
        await look_back(full, page.figure)


def lines(count: int) -> list[tuple[str, bytes]]:
    line = FinishedRun.bounded(
        status="completed", session_id="session-1", offset=1, attempt_id=str(uuid7()), body_hash="0" * 16
    )
    return [(str(uuid7()), line.to_bytes()) for _ in range(count)]


async def look_back(cluster: Cluster, figure: Callable[[str, str, float], None]) -> None:
    """What a caller pays who chose the id himself."""
    finished = FinishedRuns(cluster.connection, cluster.topics)
    try:
        for name, partition in (("connection and first look", 0), ("first look", 1), ("second look", 1)):
            began = time.perf_counter()
            await finished.find(partition, "nobody", 0)
            figure(f"client: {name} at a full window", "ms", (time.perf_counter() - began) * 1000)
        figure("client: a remembered run", "bytes", held_by(finished._lines[1].copy) / WINDOW + 2 * 32)
    finally:
        await finished.close()


async def test_a_flood_of_control_records(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    quiet, flooded = clusters
    topics: Topics = flooded.topics
    unknown = [(run_id, CancelRun(run_id=run_id, reason="flood").to_bytes()) for run_id in map(_id, range(FLOOD))]
    await send(flooded.connection, topics.control, 0, unknown)
    await send(flooded.connection, topics.control, 0, [("", b"{")] * FLOOD)
    with report("flood of control records") as page:
        page.figure("a worker without it", "MiB resident", await memory_of_a_worker(quiet, tmp_path / "quiet"))
        with_it = await memory_of_a_worker(flooded, tmp_path / "flooded", read=f"ignored ({FLOOD} so far)")
        page.figure("a worker with it", "MiB resident", with_it)
        async with working(plan_of(flooded, GatedHarness(gates_open=True))) as worker:
            began = time.perf_counter()
            await flooded.submit("runs")
            await flooded.tail.result("runs")
            page.figure("until a worker behind it gives a result", "s", time.perf_counter() - began)
            control = worker.worker.engine.control
            health = Health(worker.worker, {}, lambda: asyncio.sleep(0))
            await eventually(lambda: control.ignored == FLOOD, "all is read")
            assert health.status()["control"] == {"tombstones": FLOOD, "forgotten": 0, "ignored": FLOOD}
        newest, all_of_them = held_by(lambda: _buried(MAX_REASONS)), held_by(lambda: _buried(FLOOD))
        page.figure(f"a tombstone with its reason, the newest {MAX_REASONS:,}", "bytes", newest / MAX_REASONS)
        page.figure("an older tombstone", "bytes", (all_of_them - newest) / (FLOOD - MAX_REASONS))


def _id(number: int) -> str:
    return f"unknown-{number}"


def _buried(count: int) -> Tombstones:
    tombstones = Tombstones()
    for number in range(count):
        tombstones.bury(CancelRun(run_id=_id(number), reason="flood"))
    return tombstones
