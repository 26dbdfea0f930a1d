"""What a capture costs: events a second against reading the topic bare, and memory that does not grow with the runs.

The largest one is also killed in mid-step and gone on with, and must come to the same bytes.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import TopicPartition

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.replay.recording.files import RecordingReader
from tests.benchmarks.frame import report
from tests.integration.test_capture_command import interrupted, terminal_of
from tests.support.captures import made_up_runs
from tests.support.cluster import Cluster, cluster_of

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_200)]

PARTITIONS = 8
SIZES = (10_000, 50_000, 100_000)
RECORDS = 6
"""Records of deltas for each run: 12 events."""
LEAST = 20_000.0
"""Events a second of a processor: one core's worth, however busy the others keep the machine."""
MIB = 1024 * 1024
MOST_MIB = 40
"""Of ten times as many runs: SQLite's cache (16 MiB) is full with the first thousands, the rest is how fetches fall."""


@pytest.fixture
async def full(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Topics with the largest number of runs, an equal share in each partition."""
    async with cluster_of(kafka, topics, partitions=PARTITIONS) as one:
        await made_up_runs(one, SIZES[-1], partitions=PARTITIONS, records=RECORDS)
        yield one


async def read_bare(cluster: Cluster, topic: str) -> tuple[int, float, float]:
    """Records of a topic, the seconds that aiokafka takes to hand them out, and those on a processor."""
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with tail_consumer(cluster.connection, read_committed=False) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        count, began, before = 0, time.perf_counter(), time.process_time()
        while count < sum(ends.values()):
            count += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
        return count, time.perf_counter() - began, time.process_time() - before


async def captured(cluster: Cluster, directory: Path, *arguments: str) -> tuple[float, float, float]:
    """Seconds, those on a processor, and the highest MiB resident of the command in a process of its own."""
    terminal = terminal_of(cluster, directory.parent)
    began, before = time.perf_counter(), os.times()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.cli", "capture", str(directory), *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        env=terminal.environment,
    )
    highest, watched, ending = 0, psutil.Process(process.pid), asyncio.ensure_future(process.wait())
    while not (await asyncio.wait({ending}, timeout=0.2))[0]:
        try:
            highest = max(highest, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
    assert await ending == 0
    seconds, after = time.perf_counter() - began, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, busy, highest / MIB


def oldest(size: int) -> list[str]:
    """The options that choose so many runs."""
    share = size // PARTITIONS
    return [] if size == SIZES[-1] else [f"--to-offset={number}:{share}" for number in range(PARTITIONS)]


async def test_a_capture_of_many_runs(full: Cluster, tmp_path: Path) -> None:
    with report("recording") as page:
        page.figure("load of the machine before", "processes", os.getloadavg()[0])
        records, bare, bare_busy = await read_bare(full, full.topics.stream_deltas)
        measured = {size: await captured(full, tmp_path / str(size), *oldest(size)) for size in SIZES}
        for size, (_, _, highest) in measured.items():
            manifest = RecordingReader.open(tmp_path / str(size)).manifest
            assert (manifest.runs, manifest.gaps, manifest.events) == (size, {}, 2 * RECORDS * size)
            page.figure(f"{size:,} runs: highest memory", "MiB resident", highest)
        # Of the largest alone: the others, too, read the whole of the deltas.
        manifest = RecordingReader.open(tmp_path / str(SIZES[-1])).manifest
        events, (seconds, busy, highest) = manifest.events, measured[SIZES[-1]]
        assert events == 2 * records
        page.figure("recording", "events/s", events / seconds)
        page.figure("reading the deltas bare", "events/s", events / bare)
        page.figure("recording, of reading bare", "%", 100 * bare / seconds)
        # Of a machine that is busy with other things, these say more than the clock does.
        page.figure("recording", "events a second of a processor", events / busy)
        page.figure("reading the deltas bare", "events a second of a processor", events / bare_busy)
        page.figure("recording, of reading bare", "% by processor", 100 * bare_busy / busy)
        page.figure("the recording", "MB", sum(part.bytes for part in manifest.files) / 1e6)
        page.figure("load of the machine after", "processes", os.getloadavg()[0])
    assert highest - measured[SIZES[0]][-1] < MOST_MIB
    assert events / busy >= LEAST
    await killed_and_gone_on_with(full, tmp_path / "torn", manifest.content_hash)


async def killed_and_gone_on_with(full: Cluster, directory: Path, whole: str) -> None:
    terminal = terminal_of(full, directory.parent)
    killed = await interrupted(terminal, "events", 5, signal.SIGKILL, "capture", str(directory))
    assert killed.code == -signal.SIGKILL, killed.err
    await captured(full, directory, "--resume")
    assert RecordingReader.open(directory).manifest.content_hash == whole
