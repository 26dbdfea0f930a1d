"""How fast recorded runs are played again in one process, against reading them and against running them bare."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import JsonValue

from agentstream.consumers.replay.playing import Budget, Player, ReplayDirectory, ReplayTerms
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.schemas.recordings import RecordedRun
from tests.benchmarks.frame import report
from tests.support.replays import Case, manifest, record_scripted, scripted, scripted_performer, write

pytestmark = pytest.mark.bench
RUNS = 1_000
ROUNDS = 3
WARM, MANY = 2_000, 10_000
MOST_BYTES = 8_000_000
"""Of 6,000 runs more: their ids and places, 300 bytes each, and what an allocator does not give back."""
LEAST = 500.0
"""Runs for each second of this process's CPU: one core's worth, however busy the others keep the machine."""


async def rate(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Runs for each second that passed, and for each second of CPU."""
    began, spent = time.perf_counter(), time.process_time()
    await work()
    return RUNS / (time.perf_counter() - began), RUNS / (time.process_time() - spent)


@pytest.mark.timeout(600)
async def test_frozen_replays_of_scripted_runs(tmp_path: Path) -> None:
    tool: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "A"}
    few = await record_scripted(
        *(Case(session=f"s{n}", parameters=scripted("one two three four five", tool)) for n in range(100))
    )
    runs = [
        few[n % 100].model_copy(update={"run_id": f"r{n}", "session_id": f"s{n % 97}", "turn": n // 97})
        for n in range(RUNS)
    ]
    recording = RecordingReader.open(write(tmp_path / "recording", runs))
    terms = ReplayTerms(mode="frozen")
    rounds = iter(range(ROUNDS))

    async def read() -> None:
        assert sum(1 for _ in recording) == RUNS

    async def bare() -> None:
        async with scripted_performer(terms, {"read"}) as (performer, _):
            for run in runs:
                await performer.perform(run.request)

    async def played() -> None:
        with ReplayDirectory.open(tmp_path / f"out{next(rounds)}", manifest(RUNS, terms)) as directory:
            async with scripted_performer(terms, {"read"}) as (performer, playbacks):
                tally = await Player(directory, performer, playbacks, budget=Budget(concurrency=16)).play(recording)
        assert (tally.finished, tally.diverged) == (RUNS, 0)

    works: dict[str, Callable[[], Awaitable[None]]] = {
        "reading the recording": read,
        "runs code alone": bare,
        "frozen replay": played,
    }
    best: dict[str, float] = {}
    with report("frozen replay") as page:
        for _ in range(ROUNDS):
            for name, work in works.items():
                passed, spent = await rate(work)
                best[name] = max(best.get(name, 0.0), spent)
                best[f"{name}, as time passed"] = max(best.get(f"{name}, as time passed", 0.0), passed)
                await asyncio.sleep(0)
        for name, value in best.items():
            page.figure(name, "runs/s", value)
        for name in ("reading the recording", "runs code alone"):
            page.figure(f"frozen replay, of {name}", "%", 100 * best["frozen replay"] / best[name])
    assert best["frozen replay"] >= LEAST


@pytest.mark.timeout(900)
async def test_ten_thousand_replayed_runs_take_no_more_memory_than_two_thousand(tmp_path: Path) -> None:
    few = await record_scripted(*(Case(session=f"s{n}", parameters=scripted("one two three")) for n in range(50)))
    process = psutil.Process()
    sizes: list[int] = []

    def runs() -> Iterator[RecordedRun]:
        for n in range(MANY):
            if n and n % WARM == 0:
                gc.collect()
                sizes.append(process.memory_info().rss)
            yield few[n % 50].model_copy(update={"run_id": f"r{n}", "session_id": f"s{n}"})

    terms = ReplayTerms(mode="frozen")
    with ReplayDirectory.open(tmp_path / "out", manifest(MANY, terms)) as directory:
        async with scripted_performer(terms, ()) as (performer, playbacks):
            tally = await Player(directory, performer, playbacks, budget=Budget(concurrency=16)).play(runs())
    assert (tally.finished, tally.diverged) == (MANY, 0)
    with report("memory of a replay") as page:
        page.figure("for each run after the first 2,000", "bytes", (sizes[-1] - sizes[0]) / (MANY - 2 * WARM))
    assert sizes[-1] - sizes[0] < MOST_BYTES, sizes
