"""A network that fails between one worker and the brokers: each worker has a link of its own, which can be cut.

async with links_to(bootstrap_servers) as links:
    fleet = Fleet(..., way=links.way)
    links.of(2).cut(CUTS["cut_deaf"])     # worker 2 is heard, and hears nothing
    links.of(2).heal()
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.chaos.link import Cut, Direction, Ending, Link
from tests.support.frames import Api

_GROUP = frozenset({Api.JOIN_GROUP, Api.SYNC_GROUP, Api.HEARTBEAT, Api.LEAVE_GROUP})
_TRANSACTIONS = frozenset({Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.END_TXN})

CUTS: Mapping[str, Cut] = {
    "cut_silent": Cut(),
    "cut_lost": Cut(ending=Ending.RESET_AT_LAST),
    "cut_reset": Cut(ending=Ending.RESET_AT_ONCE),
    "cut_mute": Cut(directions=frozenset({Direction.UP})),
    "cut_deaf": Cut(directions=frozenset({Direction.DOWN})),
    "cut_group": Cut(apis=_GROUP),
    "cut_transactions": Cut(apis=_TRANSACTIONS),
}
"""Every kind of cut."""


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
