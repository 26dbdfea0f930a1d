"""A network that fails between one worker and the brokers: each worker has a link of its own, which can be cut.

async with links_to(bootstrap_servers) as links:
    fleet = Fleet(..., way=links.way)
    links.of(2).cut(CUTS["cut_deaf"])     # worker 2 is heard, and hears nothing
    links.of(2).heal()
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from tests.chaos.fleet import Fleet
from tests.chaos.link import Cut, Direction, Ending, Link
from tests.chaos.worker_faults import WorkerFaults
from tests.support.frames import Api

_GROUP = frozenset({Api.JOIN_GROUP, Api.SYNC_GROUP, Api.HEARTBEAT, Api.LEAVE_GROUP})
_TRANSACTIONS = frozenset({Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.END_TXN})

CUTS: Mapping[str, Cut] = {
    "cut_silent": Cut(),
    "cut_lost": Cut(ending=Ending.RESET_AT_LAST),
    "cut_forgotten": Cut(ending=Ending.FORGOTTEN),
    "cut_reset": Cut(ending=Ending.RESET_AT_ONCE),
    "cut_mute": Cut(directions=frozenset({Direction.UP})),
    "cut_deaf": Cut(directions=frozenset({Direction.DOWN})),
    "cut_group": Cut(apis=_GROUP),
    "cut_group_reset": Cut(apis=_GROUP, ending=Ending.RESET_AT_ONCE),
    "cut_transactions": Cut(apis=_TRANSACTIONS),
}
"""Cuts of all that these words say, for one worker."""


class NetworkFaults:
    """Faults of the network between one worker and the brokers."""

    def __init__(self, fleet: Fleet, links: "Links", workers: WorkerFaults) -> None:
        self._fleet = fleet
        self._links = links
        self._workers = workers

    def by_kind(self) -> Mapping[str, Callable[[float], Awaitable[None]]]:
        """Every fault, by its kind."""
        plain = {kind: partial(self._cut, cut) for kind, cut in CUTS.items()}
        return plain | {"cut_one": self._cut_one, "cut_and_kill": self._cut_and_kill}

    async def _cut(self, cut: Cut, draw: float) -> None:
        # The later digits choose the worker: the first ones say how long, and both would always come together.
        await self._for_a_while(self._victim(draw), cut, draw)

    async def _cut_one(self, draw: float) -> None:
        """The worker reaches all brokers but one."""
        victim = self._victim(draw)
        ports = list(self._links.of(victim).ports)
        await self._for_a_while(victim, Cut(port=ports[int(draw * 100_000) % len(ports)]), draw)

    async def _cut_and_kill(self, draw: float) -> None:
        """While one worker is cut off another one is killed: what both had goes to those that are left."""
        victim = self._victim(draw)
        others = [worker for worker in self._workers.alive if worker is not self._fleet.workers[victim]]
        if others:
            await asyncio.gather(self._for_a_while(victim, Cut(), draw), self._workers.kill_one(others[0]))

    async def _for_a_while(self, victim: int, cut: Cut, draw: float) -> None:
        link = self._links.of(victim)
        link.cut(cut)
        await asyncio.sleep(seconds_of_cut(draw))
        link.heal()

    def _victim(self, draw: float) -> int:
        return self._fleet.workers.index(self._workers.victim(draw * 1_000 % 1))


def seconds_of_cut(draw: float) -> float:
    """How long a cut lasts: every other one outlives the session of the worker, 6 s."""
    return 0.5 + 11 * draw


class Links:
    """The links of a fleet's workers. Made by `links_to`."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._brokers = [(host, int(port)) for host, port in (s.split(":") for s in bootstrap_servers.split(","))]
        self._links: dict[int, Link] = {}

    def of(self, worker: int) -> Link:
        """The link of a worker, by its number."""
        return self._links[worker]

    async def way(self, worker: int) -> str:
        """Make a link for a worker that is about to start; returns its bootstrap servers."""
        link = Link(self._brokers)
        self._links[worker] = link
        await link.open()
        return link.bootstrap_servers

    async def close(self) -> None:
        """Close every link."""
        for link in self._links.values():
            await link.close()


@asynccontextmanager
async def links_to(bootstrap_servers: str) -> AsyncIterator[Links]:
    """Links to these brokers, closed at the end."""
    links = Links(bootstrap_servers)
    try:
        yield links
    finally:
        await links.close()
