"""The real Pi under faults of its sidecar, its provider, its disk and its workers, and a checker that trusts the log.

CHAOS_PI_SEED=7 CHAOS_PI_REQUESTS=2000 CHAOS_PI_FAULTS=40 make chaos     the same seed is the same schedule
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from agentstream.consumers.harness.pi import APART_AT_ONCE
from tests.architecture.sources import ROOT
from tests.chaos.audit import Log, read_log, violations
from tests.chaos.ordeal import drained
from tests.chaos.pi_disk import small_disk
from tests.chaos.pi_fleet import PiFleet, pi_fleet
from tests.chaos.pi_load import PiLoad, dishonest, outcomes
from tests.chaos.pi_model import MoodyModel
from tests.chaos.pi_nemesis import KINDS, PiNemesis, pi_schedule
from tests.chaos.watcher import Watcher
from tests.integration.pi_fixtures import eventually

PARTITIONS = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    requests: int
    faults: int
    rate: float
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class Stage:
    fleet: PiFleet
    model: MoodyModel
    load: PiLoad
    watcher: Watcher


@asynccontextmanager
async def staged(kafka: str, prefix: str, directory: Path, *, seed: int, workers: int) -> AsyncIterator[Stage]:
    """Workers that serve, a model they find, and nothing asked yet."""
    with small_disk(directory / "disk") as disk:
        async with MoodyModel() as model:
            fleet = pi_fleet(kafka, prefix, directory, disk=disk, base_url=model.base_url)
            async with fleet.started(workers=workers, partitions=PARTITIONS):
                load = PiLoad(fleet, seed, sessions=40, model=model)
                yield Stage(fleet=fleet, model=model, load=load, watcher=Watcher(fleet))


async def survive(plan: Plan, kafka: str, prefix: str, directory: Path) -> None:
    """Load and faults together, then a drain, a clean stop, and the checker."""
    faults = pi_schedule(plan.seed, faults=plan.faults)
    print(f"\nseed {plan.seed}: {', '.join(map(str, faults))}")  # noqa: T201 - the schedule belongs into the report
    async with staged(kafka, prefix, directory, seed=plan.seed, workers=plan.workers) as stage:
        watching = asyncio.create_task(stage.watcher.watch(), name="watcher")
        nemesis = PiNemesis(stage.fleet, stage.model, stage.load)
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.load.run(plan.requests, per_second=plan.rate), name="load")
            group.create_task(nemesis.work(faults), name="nemesis")
        await drained(stage.load, stage.watcher, watching)
        await stop_all(stage.fleet)
        assert len(nemesis.done) == len(faults)
        await audit(stage)


async def stop_all(fleet: PiFleet) -> None:
    """SIGTERM to all that serve."""
    await asyncio.gather(*(fleet.stop_worker(number) for number in fleet.serving))
    for worker in fleet.workers:
        await worker.wait()


async def audit(stage: Stage) -> Log:
    """All promises; prints what was seen, and gives it."""
    fleet, load, model = stage.fleet, stage.load, stage.model
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    print(  # noqa: T201
        f"{len(load.acknowledged)} acknowledged, {dict(outcomes(log))}, kinds {dict(Counter(load.kinds.values()))}; "
        f"model calls by mood {dict(model.moods_met)}, "
        f"attempts {dict(Counter(line.body['attempt'] for line in log.results))}, longest silences "
        f"{', '.join(f'{seconds:.1f}' for seconds in stage.watcher.silences()[:3])} s"
    )
    private = (str(fleet.disk.path), str(ROOT), "/tmp/", "node_modules")
    assert stage.watcher.violations() == []
    assert violations(log, load.acknowledged) == []
    assert dishonest(log, load, private) == []
    assert model.strangers == []
    assert fleet.left_behind() == []
    assert fleet.log_lines("Traceback") == []
    codes = {number: worker.returncode for number, worker in enumerate(fleet.workers)}
    assert codes == {number: -9 if number in fleet.killed else 0 for number in codes}, "a worker ended by itself"
    return log


@pytest.mark.chaos
async def test_a_sidecar_that_dies_under_many_runs_costs_none_of_them_anything(
    kafka: str, topics: str, tmp_path: Path
) -> None:
    """Each is tried again in a process of its own, a few at a time: the last wait longer than they may be silent."""
    runs = 6 * APART_AT_ONCE
    async with staged(kafka, topics, tmp_path, seed=0, workers=1) as stage:
        rng = Random(0)
        watching = asyncio.create_task(stage.watcher.watch(), name="watcher")
        await stage.load.send(
            [stage.load.request(f"r{n}", "long", f"s{n}", rng, first_event_ms=15_000) for n in range(runs)]
        )
        await eventually(lambda: len(stage.model.traces) == runs, within=60)
        stage.fleet.sidecars(0)[0].kill()
        await drained(stage.load, stage.watcher, watching)
        await stop_all(stage.fleet)
        log = await audit(stage)
    assert [line.body["status"] for line in log.results] == ["completed"] * runs
    assert {line.body["attempt"] for line in log.results} == {2}


def test_a_seed_is_always_the_same_schedule_and_meets_every_kind() -> None:
    assert pi_schedule(7, faults=20) == pi_schedule(7, faults=20)
    assert pi_schedule(7, faults=20) != pi_schedule(8, faults=20)
    assert {fault.kind for fault in pi_schedule(3, faults=len(KINDS))} == set(KINDS)


@pytest.mark.timeout(240)
async def test_a_short_seed_of_faults_around_pi_keeps_every_promise(kafka: str, topics: str, tmp_path: Path) -> None:
    await survive(Plan(seed=1, requests=120, faults=6, rate=6), kafka, topics, tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_long_seed_of_faults_around_pi_keeps_every_promise(kafka: str, topics: str, tmp_path: Path) -> None:
    plan = Plan(
        seed=int(os.environ.get("CHAOS_PI_SEED", "1")),
        requests=int(os.environ.get("CHAOS_PI_REQUESTS", "1000")),
        faults=int(os.environ.get("CHAOS_PI_FAULTS", "30")),
        rate=float(os.environ.get("CHAOS_PI_RATE", "6")),
        workers=3,
    )
    await survive(plan, kafka, topics, tmp_path)
