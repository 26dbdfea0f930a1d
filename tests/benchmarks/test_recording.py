"""What a capture costs: events a second against reading the topic bare, and memory that does not grow with the runs."""

import asyncio
import os
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
from tests.integration.test_capture_command import terminal_of
from tests.support.captures import made_up_runs
from tests.support.cluster import Cluster, cluster_of

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_200)]

PARTITIONS = 8
SIZES = (10_000, 100_000)
RECORDS = 6
"""Records of deltas for each run: 12 events."""
MIB = 1024 * 1024


@pytest.fixture
async def clusters(kafka: str, topics: str) -> AsyncIterator[list[Cluster]]:
    """Give topics for each size."""
    async with (
        cluster_of(kafka, f"{topics}a.", partitions=PARTITIONS) as small,
        cluster_of(kafka, f"{topics}b.", partitions=PARTITIONS) as large,
    ):
        yield [small, large]


async def read_bare(cluster: Cluster, topic: str) -> tuple[int, float]:
    """Records of a topic, and the seconds that aiokafka takes to hand them out."""
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with tail_consumer(cluster.connection, read_committed=False) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        count, began = 0, time.perf_counter()
        while count < sum(ends.values()):
            count += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
        return count, time.perf_counter() - began


async def captured(cluster: Cluster, directory: Path) -> tuple[float, float, float]:
    """Seconds, those on a processor, and the highest MiB resident of the command in a process of its own."""
    terminal = terminal_of(cluster, directory.parent)
    began, before = time.perf_counter(), os.times()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.cli", "capture", str(directory)),
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


async def test_a_capture_of_many_runs(clusters: list[Cluster], tmp_path: Path) -> None:
    with report("recording") as page:
        for size, cluster in zip(SIZES, clusters, strict=True):
            await made_up_runs(cluster, size, partitions=PARTITIONS, records=RECORDS)
            records, bare = await read_bare(cluster, cluster.topics.stream_deltas)
            directory = tmp_path / str(size)
            seconds, busy, resident = await captured(cluster, directory)
            reader = RecordingReader.open(directory)
            assert (len(reader), reader.manifest.gaps) == (size, {})
            events = reader.manifest.events
            assert events == 2 * records
            page.figure(f"{size:,} runs: recording", "s", seconds)
            page.figure(f"{size:,} runs: recording, all steps", "events/s", events / seconds)
            # Of a machine that is busy with other things, this says more than the clock does.
            page.figure(f"{size:,} runs: recording, all steps", "events a second of a processor", events / busy)
            page.figure(f"{size:,} runs: reading the deltas bare", "events/s", events / bare)
            page.figure(f"{size:,} runs: recording as a multiple of bare reading", "×", seconds / bare)
            page.figure(f"{size:,} runs: highest memory", "MiB resident", resident)
            page.figure(f"{size:,} runs: the recording", "MB", sum(part.bytes for part in reader.manifest.files) / 1e6)
