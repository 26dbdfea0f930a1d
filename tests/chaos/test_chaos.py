"""Faults at random under load, and a checker that trusts only the log. `make chaos` runs the long ones.

CHAOS_SEED=7 CHAOS_REQUESTS=100000 CHAOS_FAULTS=50 CHAOS_RATE=40 make chaos     the same seed is the same schedule
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.chaos.audit import read_log, violations
from tests.chaos.fleet import fleet_of
from tests.chaos.load import Load, Watcher
from tests.chaos.nemesis import Nemesis, schedule
from tests.conftest import PrivateKafka

PARTITIONS = 8
DRAIN_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    requests: int
    faults: int
    rate: float
    workers: int = 3


async def survive(plan: Plan, private_kafka: PrivateKafka, prefix: str, logs: Path) -> None:
    """Load and faults together, then a drain, a clean stop, and the checker."""
    faults = schedule(plan.seed, faults=plan.faults)
    print(f"\nseed {plan.seed}: {', '.join(map(str, faults))}")  # noqa: T201 - the schedule belongs into the report
    broker = await private_kafka()
    async with fleet_of(broker.bootstrap_servers, prefix, logs, workers=plan.workers, partitions=PARTITIONS) as fleet:
        load = Load(fleet, plan.seed, sessions=200)
        watcher = Watcher(fleet)
        watching = asyncio.create_task(watcher.watch(), name="watcher")
        nemesis = Nemesis(fleet, broker)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(plan.requests, per_second=plan.rate), name="load")
            group.create_task(nemesis.work(faults), name="nemesis")
        await drained(load, watcher, watching)
        for worker in fleet.workers:
            if worker.returncode is None:
                worker.terminate()
        for worker in fleet.workers:
            await worker.wait()
        log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
        crashed = sum(line.body["crashes"] for line in log.results)
        print(  # noqa: T201
            f"{len(load.acknowledged)} acknowledged, {len(load.unsure)} unsure, {len(log.results)} results, "
            f"{len(nemesis.done)} faults, {crashed} attempts lost, longest silences "
            f"{', '.join(f'{seconds:.1f}' for seconds in watcher.silences()[:5])} s"
        )
        assert watcher.twice == []
        assert violations(log, load.acknowledged) == []
        assert left_behind(fleet.prefix) == []


async def drained(load: Load, watcher: Watcher, watching: asyncio.Task[None]) -> None:
    """Wait until every acknowledged request has its result; the faults are over, so this must come to an end."""
    missing: set[str] = set()
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while missing := set(load.acknowledged) - watcher.seen.keys():
                if watching.done():
                    await watching
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"{len(missing)} acknowledged requests have no result: {sorted(missing)[:5]}")
    finally:
        watching.cancel()
        await asyncio.wait({watching})


def left_behind(prefix: str) -> list[int]:
    """Processes of this fleet that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AGENTSTREAM_TOPIC_PREFIX") == prefix and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_seed_is_always_the_same_schedule() -> None:
    assert schedule(7, faults=20) == schedule(7, faults=20)
    assert schedule(7, faults=20) != schedule(8, faults=20)
    assert {"kill", "stop", "term"} <= {fault.kind for fault in schedule(3, faults=3)}


@pytest.mark.timeout(240)
async def test_a_short_seed_keeps_every_promise(private_kafka: PrivateKafka, topics: str, tmp_path: Path) -> None:
    await survive(Plan(seed=1, requests=600, faults=5, rate=25), private_kafka, topics, tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_long_seed_keeps_every_promise(private_kafka: PrivateKafka, topics: str, tmp_path: Path) -> None:
    plan = Plan(
        seed=int(os.environ.get("CHAOS_SEED", "1")),
        requests=int(os.environ.get("CHAOS_REQUESTS", "20000")),
        faults=int(os.environ.get("CHAOS_FAULTS", "50")),
        rate=float(os.environ.get("CHAOS_RATE", "40")),
    )
    await survive(plan, private_kafka, topics, tmp_path)
