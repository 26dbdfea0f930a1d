"""One seed from beginning to end: load and faults together, a drain, a clean stop, and the checker."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentstream.infra.worker_process import STARTED
from tests.chaos.audit import Log, read_log, violations
from tests.chaos.bounds import MEBIBYTE, Meter, left_behind, left_in
from tests.chaos.cluster_faults import cluster_options
from tests.chaos.cuts import links_to
from tests.chaos.fleet import SESSION_TIMEOUT_MS, Fleet
from tests.chaos.liveness import Recovery, percentile, recoveries
from tests.chaos.load import Load
from tests.chaos.mixed_load import MixedLoad
from tests.chaos.nemesis import Nemesis
from tests.chaos.schedule import KINDS, NETWORK_KINDS, Fault, schedule
from tests.chaos.watcher import Watcher
from tests.conftest import PrivateKafka

STALL_SECONDS = 150.0
"""No result at all for so long while some are owed: the longest run takes a minute, and may be lost with its worker."""
PROGRESS_SECONDS = 15.0
FLOW_P95_S = SESSION_TIMEOUT_MS / 1000 + 10
FLOW_MAX_S = 60.0
ENOUGH = 20
SESSIONS = 200
PARTITIONS = 8
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of the fleet."""

    seed: int
    requests: int
    faults: int
    rate: float
    """Requests per second."""
    workers: int = 3
    longest_s: float = 60.0
    """No run takes longer."""
    kinds: Sequence[str] = KINDS
    """Of faults."""
    brokers: int = 1


@dataclass(kw_only=True)
class Ordeal:
    """Everything that watches a fleet while it suffers."""

    plan: Plan
    fleet: Fleet
    nemesis: Nemesis
    load: MixedLoad
    watcher: Watcher
    meter: Meter
    began: float

    def say(self, text: str) -> None:
        """Print it with the seconds since the beginning: whoever started a long seed looks on."""
        print(f"[{time.monotonic() - self.began:6.0f} s] {text}", flush=True)  # noqa: T201

    async def tell_progress(self) -> None:
        """A line now and then, until cancelled."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            load, seen = self.load, self.watcher.seen
            self.say(
                f"{load.begun} begun, {len(load.acknowledged)} acknowledged, {len(load.unsure)} unsure, "
                f"{len(seen)} results seen, {len(self.nemesis.done)}/{self.plan.faults} faults done, "
                f"largest worker {self.meter.max_rss / MEBIBYTE:.0f} MiB"
            )
            for fallen in self.nemesis.fell:
                self.say(f"{fallen} by itself")


def spread(faults: Sequence[Fault], plan: Plan) -> list[Fault]:
    """The same faults with longer rests between them, so that they reach to the end of a long load.

    A fault takes about five seconds itself; where the load is short nothing is changed.
    """
    load_s = plan.requests / plan.rate
    rests = sum(fault.after_s for fault in faults)
    factor = max(1.0, (0.95 * load_s - 5.0 * len(faults)) / max(rests, 1.0))
    return [replace(fault, after_s=fault.after_s * factor) for fault in faults]


async def survive(plan: Plan, private_kafka: PrivateKafka, prefix: str, directory: Path) -> None:
    """A cluster, workers, load and faults together, then a drain, a clean stop, and the checker."""
    faults = spread(schedule(plan.seed, faults=plan.faults, kinds=plan.kinds), plan)
    broker = await private_kafka(cluster_options(plan.brokers))
    temporary = directory / "temporary"
    temporary.mkdir()
    async with links_to(broker.bootstrap_servers) as all_links:
        links = all_links if set(plan.kinds) & set(NETWORK_KINDS) else None
        fleet = Fleet(
            bootstrap_servers=broker.bootstrap_servers,
            prefix=prefix,
            logs=directory,
            environment={"TMPDIR": str(temporary)},
            way=None if links is None else links.way,
        )
        async with fleet.started(workers=plan.workers, partitions=PARTITIONS):
            ordeal = Ordeal(
                plan=plan,
                fleet=fleet,
                nemesis=Nemesis(fleet, broker, links),
                load=MixedLoad(fleet, plan.seed, sessions=SESSIONS, longest_s=plan.longest_s),
                watcher=Watcher(fleet),
                meter=Meter(fleet),
                began=time.monotonic(),
            )
            ordeal.say(f"seed {plan.seed}: {', '.join(map(str, faults))}")
            await _serving(fleet)
            await _endure(ordeal, faults)
            found = [*await _audit(ordeal), *(f"a worker left {name} in TMPDIR" for name in left_in(temporary))]
    for sentence in found[:SHOWN]:
        ordeal.say(sentence)
    assert found == []


async def _serving(fleet: Fleet) -> None:
    """Wait until every worker has started: faults before that are of the start, and there is nothing to measure."""
    for number, worker in enumerate(fleet.workers):
        while STARTED.encode() not in (fleet.logs / f"worker-{number}.log").read_bytes():
            assert worker.returncode is None, f"worker {number} ended before it served"
            await asyncio.sleep(0.05)


async def _endure(ordeal: Ordeal, faults: Sequence[Fault]) -> None:
    watching = asyncio.create_task(ordeal.watcher.watch(), name="watcher")
    async with _in_background(ordeal):
        async with asyncio.TaskGroup() as group:
            group.create_task(ordeal.load.run(ordeal.plan.requests, per_second=ordeal.plan.rate), name="load")
            group.create_task(ordeal.nemesis.work(faults), name="nemesis")
        ordeal.say("load and faults are over; draining")
        await drained(ordeal.load, ordeal.watcher, watching)
        await stop_all(ordeal.fleet)


async def _audit(ordeal: Ordeal) -> list[str]:
    fleet, load, watcher = ordeal.fleet, ordeal.load, ordeal.watcher
    ordeal.say("all workers have stopped; reading the topics")
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id, large=True)
    flows = recoveries(ordeal.nemesis.done, load.sent, watcher.seen)
    ordeal.say(summary(ordeal, log, flows))
    return [
        *violations(log, load.acknowledged),
        *watcher.violations(),
        *ordeal.meter.violations(),
        *too_slow(flows),
        *ordeal.nemesis.fell,
        *(f"process {pid} of the fleet still lives" for pid in left_behind(fleet.prefix)),
    ]


@asynccontextmanager
async def _in_background(ordeal: Ordeal) -> AsyncIterator[None]:
    tasks = {
        asyncio.create_task(ordeal.meter.watch(), name="meter"),
        asyncio.create_task(ordeal.tell_progress(), name="progress"),
    }
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def drained(load: Load, watcher: Watcher, watching: "asyncio.Task[None]") -> None:
    """Wait until every acknowledged request has its result and the watcher has read everything.

    The faults are over, so this must come to an end: it fails when nothing new came for longer than any run takes.
    """
    count, since = -1, time.monotonic()
    try:
        while (missing := set(load.acknowledged) - watcher.seen.keys()) or not await watcher.at_the_end():
            if watching.done():
                await watching
            if all(worker.returncode is not None for worker in load.fleet.workers):
                codes = [worker.returncode for worker in load.fleet.workers]
                pytest.fail(f"all workers have ended ({codes}), {len(missing)} requests have no result")
            if len(watcher.seen) != count:
                count, since = len(watcher.seen), time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                pytest.fail(f"{len(missing)} acknowledged requests have no result: {sorted(missing)[:5]}")
            await asyncio.sleep(0.2)
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def stop_all(fleet: Fleet) -> None:
    """SIGTERM to every worker that lives, and wait for their ends."""
    await asyncio.gather(
        *(fleet.stop_worker(number) for number, worker in enumerate(fleet.workers) if worker.returncode is None)
    )
    for worker in fleet.workers:
        await worker.wait()


def too_slow(flows: Sequence[Recovery]) -> list[str]:
    """Whether results flowed again in time after the faults: 95 of 100 within the session timeout and ten seconds.

    Of fewer than twenty the 95th percentile would be the slowest: for that one there is the other bound.
    """
    seconds = [flow.seconds for flow in flows]
    found = [
        f"results of partition {flow.partition} came back {flow.seconds:.1f} s after a fault ({flow.kind}) was over"
        for flow in flows
        if flow.seconds > FLOW_MAX_S
    ]
    if len(flows) >= ENOUGH and (p95 := percentile(seconds, 0.95)) > FLOW_P95_S:
        found.append(f"after faults results flowed again within {p95:.1f} s at the 95th percentile, not {FLOW_P95_S}")
    return found


def summary(ordeal: Ordeal, log: Log, flows: Sequence[Recovery]) -> str:
    """What one seed was, in one line."""
    load, watcher, seconds = ordeal.load, ordeal.watcher, [flow.seconds for flow in flows]
    results = [line.body for line in log.results]
    status = Counter((result.get("error") or {}).get("code") or result["status"] for result in results)
    return (
        f"seed {ordeal.plan.seed}: {len(load.acknowledged)} acknowledged, {len(load.unsure)} unsure, "
        f"{dict(load.kinds)}; "
        f"{len(ordeal.nemesis.done)} faults {dict(Counter(done.fault.kind for done in ordeal.nemesis.done))}; "
        f"{len(results)} results {dict(status)}; {sum(result['crashes'] for result in results)} attempts lost, "
        f"{len(log.dead_letters)} dead letters, {len(log.commits)} commits, ignored by the reader "
        f"{dict(watcher.ignored)}; results flow again after p50 {percentile(seconds, 0.5):.1f} p95 "
        f"{percentile(seconds, 0.95):.1f} max {max(seconds, default=0):.1f} s, longest silence "
        f"{max(watcher.silences(), default=0):.1f} s; largest worker {ordeal.meter.max_rss / MEBIBYTE:.0f} MiB; "
        f"{time.monotonic() - ordeal.began:.0f} s"
    )
