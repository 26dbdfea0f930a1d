"""Does the faults of a schedule, one after the other, each healed before the next."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agentstream.infra.broker import LocalBroker
from agentstream.infra.worker_process import STARTED
from tests.chaos.cluster_faults import ClusterFaults
from tests.chaos.cuts import Links, NetworkFaults
from tests.chaos.fleet import Fleet
from tests.chaos.schedule import CLUSTER_KINDS, Done, Fault, schedule
from tests.chaos.worker_faults import WorkerFaults

__all__ = ["Done", "Fault", "Nemesis", "schedule"]

Inflict = Callable[[float], Awaitable[None]]


class Nemesis:
    """Faults for a fleet, its broker, and the links between them, if there are any.

    `done` are the faults so far. `fell` are workers that served and ended by themselves, with their exit codes: none
    should. One that ends while it starts, since it reaches no broker, is right to, and is started again.
    """

    def __init__(self, fleet: Fleet, broker: LocalBroker | None, links: Links | None = None) -> None:
        self._fleet = fleet
        self._broker = broker
        self._links = links
        self._workers = WorkerFaults(fleet)
        self._kinds = self._all_kinds()
        self.done: list[Done] = []
        self.fell: list[str] = []

    async def work(self, faults: Sequence[Fault]) -> None:
        """All of them; afterwards every worker runs and the broker is up."""
        for fault in faults:
            await asyncio.sleep(fault.after_s)
            began_at = time.monotonic()
            await self._kinds[fault.kind](fault.draw)
            await self._replace_fallen()
            self.done.append(Done(fault=fault, began_at=began_at, healed_at=time.monotonic()))

    def _all_kinds(self) -> Mapping[str, Inflict]:
        workers = self._workers
        kinds: dict[str, Inflict] = {
            name: getattr(workers, name) for name in ("kill", "stop", "term", "join", "leave", "storm")
        }
        if self._broker is not None:
            kinds["broker"] = self._kill_brokers
            cluster = ClusterFaults(self._broker, self._fleet.topics, self._fleet.group_id)
            kinds |= {name: getattr(cluster, name) for name in CLUSTER_KINDS}
        if self._links is not None:
            kinds |= NetworkFaults(self._fleet, self._links, workers).by_kind()
        return kinds

    async def _kill_brokers(self, draw: float) -> None:
        """Kill -9 of every broker, and their restart on the same data."""
        assert self._broker is not None
        await self._broker.kill()
        await asyncio.sleep(2 * draw)
        await self._broker.restart()

    async def _replace_fallen(self) -> None:
        for number, worker in enumerate(tuple(self._fleet.workers)):
            if worker.returncode is None or worker in self._workers.ended:
                continue
            self._workers.ended.add(worker)
            if STARTED.encode() in (self._fleet.logs / f"worker-{number}.log").read_bytes():
                self.fell.append(f"worker {number} ended with {worker.returncode}")
            await self._fleet.start_worker()
