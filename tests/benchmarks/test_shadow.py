"""What a shadow costs production and itself: latency and throughput beside it, memory over many runs, its lag."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.benchmarks.frame import report
from tests.chaos.fleet import Fleet, fleet_of
from tests.integration.shadow_fixtures import Terminal, asking, candidate

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_800)]

PARTITIONS = 8
MIB = 1024 * 1024
ROUNDS, SPACED, SPACED_GAP, BURST = 3, 150, 0.05, 1_000
WARM, MANY = 5_000, 20_000
MOST_BYTES = 16 * MIB
"""Of 15,000 runs more: their ids, sessions and places, 500 bytes each, and what an allocator does not give back."""
TABLES = "tables.jsonl"
SLOW_RUNS, SLOW_GAP, SLOW_RATE, MAX_LAG = 1_200, 0.02, 10, 3.0


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give one worker in a process of its own."""
    async with fleet_of(kafka, topics, tmp_path, workers=1, partitions=PARTITIONS) as one:
        yield one


class Traffic:
    """Sends requests, and notes when their results can be read."""

    def __init__(self, fleet: Fleet, producer: RequestProducer) -> None:
        self._fleet = fleet
        self._producer = producer
        self._seen: dict[str, float] = {}
        self._came = asyncio.Condition()
        self._count = 0

    async def read(self) -> None:
        """Read along, until cancelled."""
        async with self._fleet.results() as results:
            while True:
                values, now = await results.values(), time.monotonic()
                async with self._came:
                    self._seen |= {json.loads(value)["run_id"]: now for value in values}
                    self._came.notify_all()

    async def latencies(self, count: int, gap: float) -> list[float]:
        """Milliseconds from each request to its result, with so much time between the requests."""
        began = {}
        for request in self._requests(count):
            began[request.id or ""] = time.monotonic()
            await self._producer.submit(request)
            await asyncio.sleep(gap)
        await self._all(began)
        return [1000 * (self._seen[run_id] - at) for run_id, at in began.items()]

    async def rate(self, count: int) -> float:
        """Results a second, for so many requests at once."""
        began, requests = time.monotonic(), self._requests(count)
        for first in range(0, count, 500):
            await asyncio.gather(*map(self._producer.submit, requests[first : first + 500]))
        await self._all([request.id or "" for request in requests])
        return count / (time.monotonic() - began)

    def _requests(self, count: int) -> Sequence[InvokeRequest]:
        self._count += count
        return [asking(f"r{number}") for number in range(self._count - count, self._count)]

    async def _all(self, run_ids: Sequence[str] | dict[str, float]) -> None:
        async with self._came:
            await self._came.wait_for(lambda: all(run_id in self._seen for run_id in run_ids))


@asynccontextmanager
async def traffic(fleet: Fleet) -> AsyncIterator[Traffic]:
    """The way in and out; a first run has gone through it."""
    producer = RequestProducer(
        lambda: idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES), fleet.topics
    )
    async with producer, asyncio.TaskGroup() as group:
        one = Traffic(fleet, producer)
        reading = group.create_task(one.read(), name="results")
        await one.rate(100)
        yield one
        reading.cancel()


def terminal_of(fleet: Fleet, home: Path) -> Terminal:
    home.mkdir()
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": fleet.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": fleet.prefix,
        "AGENTSTREAM_GROUP_ID": fleet.group_id,
    }
    return Terminal(home=home, environment=environment)


async def test_production_with_a_shadow_and_without(fleet: Fleet, tmp_path: Path) -> None:
    latencies: dict[bool, list[float]] = {False: [], True: []}
    rates: dict[bool, list[float]] = {False: [], True: []}
    with report("production beside a shadow") as page:
        async with traffic(fleet) as running:
            for number in range(ROUNDS):
                # In turns, since the machine's next minute says little about this one.
                for shadowed in (False, True):
                    terminal = terminal_of(fleet, tmp_path / f"{number}{shadowed}")
                    async with _shadow(terminal) if shadowed else _nothing():
                        latencies[shadowed] += await running.latencies(SPACED, SPACED_GAP)
                        rates[shadowed].append(await running.rate(BURST))
        floor = page.distribution("request to result, alone", "ms", latencies[False])
        beside = page.distribution("request to result, with a shadow", "ms", latencies[True], floor=floor)
        alone = page.distribution("results, alone", "1/s", rates[False])
        page.distribution("results, with a shadow", "1/s", rates[True], floor=alone)
        page.figure("cores of this machine, for brokers, worker, shadow and this", "", os.cpu_count() or 0)
    # Only a shadow that holds production up could do this: a run that is spaced out waits for nothing.
    assert beside.at(50) < 3 * floor.at(50) + 20


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _shadow(terminal: Terminal) -> AsyncIterator[asyncio.subprocess.Process]:
    """A shadow that yields to everything else on this machine, as one on its own machine does to production."""
    async with terminal.following(*candidate(text="another")) as process:
        psutil.Process(process.pid).nice(19)
        yield process


@asynccontextmanager
async def _to_file(terminal: Terminal, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A shadow whose tables go to a file: a pipe that nobody reads for minutes would fill, and stop it."""
    with (terminal.home / TABLES).open("wb") as file:
        async with terminal.following(*options, stdout=file.fileno()) as process:
            yield process


async def test_memory_of_a_shadow_of_twenty_thousand_live_requests(fleet: Fleet, tmp_path: Path) -> None:
    terminal = terminal_of(fleet, tmp_path / "home")
    options = ("--concurrency", "16", "--max-lag", "2h", "--max-runs", str(MANY), *candidate(text="another"))
    sizes: dict[int, int] = {}
    async with traffic(fleet) as running, _to_file(terminal, *options, "--every", "5s", "--json") as process:
        watched, began = psutil.Process(process.pid), time.monotonic()
        producing = asyncio.create_task(running.rate(MANY))
        played, place = 0, 0
        while played < MANY - 100:
            await asyncio.sleep(0.1)
            with (tmp_path / "home" / "out" / "replay" / "results.jsonl").open("rb") as file:
                file.seek(place)
                new = file.read()
            played, place = played + new.count(b"\n"), place + len(new)
            for size in (WARM, MANY // 2, MANY - 100):
                if played >= size and size not in sizes:
                    sizes[size] = watched.memory_info().rss
        seconds = time.monotonic() - began
        await producing
        assert await process.wait() == 0
    with report("memory of a shadow") as page:
        for size, resident in sizes.items():
            page.figure(f"resident after {size:,} runs", "MiB", resident / MIB)
        grown = sizes[MANY - 100] - sizes[WARM]
        page.figure(f"for each run after the first {WARM:,}", "bytes", grown / (MANY - 100 - WARM))
        page.figure("runs shadowed, beside their production", "runs/s", MANY / seconds)
    assert grown < MOST_BYTES, sizes


async def test_a_shadow_that_is_too_slow_stays_within_its_lag(fleet: Fleet, tmp_path: Path) -> None:
    terminal = terminal_of(fleet, tmp_path / "home")
    options = ("--rate", str(SLOW_RATE), "--max-lag", f"{MAX_LAG:.0f}s", "--every", "1s", "--json", *candidate())
    async with traffic(fleet) as running, _to_file(terminal, *options) as process:
        await running.latencies(SLOW_RUNS, SLOW_GAP)
        process.terminate()
        _, said = await process.communicate()
    assert process.returncode == 0, said
    tables = [json.loads(line) for line in (terminal.home / TABLES).read_text().splitlines()]
    last = tables[-1]
    with report("lag of a shadow that is too slow") as page:
        page.figure("asked of it", "runs/s", 1 / SLOW_GAP)
        page.figure("played, at --rate 10", "runs", last["runs"])
        page.figure("passed over, and said so", "runs", last["not_taken"]["too_old"])
        page.distribution("seconds behind, once a second", "s", [table["seconds_behind"] for table in tables])
    assert b"it does not keep up" in said
    assert last["not_taken"]["too_old"] > 0
    assert last["runs"] > 0
