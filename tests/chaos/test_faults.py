"""The faults themselves: a cut that lets something through, or a fall nobody sees, would make chaos look harmless."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentstream.infra.worker_process import STARTED
from tests.chaos.cuts import CUTS, links_to
from tests.chaos.fleet import Fleet
from tests.chaos.link import Link
from tests.chaos.nemesis import Nemesis
from tests.chaos.schedule import CLUSTER_KINDS, KINDS, NETWORK_KINDS, Fault, schedule
from tests.support.frames import Api, read_frame, write_frame
from tests.support.waiting import eventually, patience

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SILENT = ("cut_silent", "cut_mute", "cut_deaf")


class Broker:
    """Answers every request with its correlation id, and remembers them."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.servers: list[asyncio.Server] = []

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def ports(self) -> list[int]:
        return [server.sockets[0].getsockname()[1] for server in self.servers]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                frame = await read_frame(reader)
                self.heard.append(struct.unpack_from(">i", frame, 4)[0])
                await write_frame(writer, frame[4:8])
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """Two ports of one."""
    made = Broker()
    made.servers = [await asyncio.start_server(made.serve, "127.0.0.1", 0) for _ in range(2)]
    yield made
    for server in made.servers:
        server.close()


class Worker:
    """What is at the near end of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ports = list(link.ports.values())
        self.lines: list[Line] = []

    async def connected(self, api: Api, number: int = 0, *, port: int | None = None) -> Line:
        """A connection that has asked once."""
        line = await asyncio.open_connection("127.0.0.1", port or self.ports[0])
        self.lines.append(line)
        await ask(line, api, number)
        assert await answer(line) == number
        return line


@pytest.fixture
async def worker(broker: Broker) -> AsyncIterator[Worker]:
    """One with a link to both ports."""
    async with links_to(broker.bootstrap_servers) as links:
        await links.way(0)
        made = Worker(links.of(0))
        yield made
        for _, writer in made.lines:
            writer.close()


async def ask(line: Line, api: Api, number: int) -> None:
    await write_frame(line[1], struct.pack(">hhih", api, 0, number, -1))


async def answer(line: Line) -> int:
    async with patience():
        return int(struct.unpack(">i", await read_frame(line[0]))[0])


@pytest.mark.parametrize("kind", SILENT)
async def test_a_silent_cut_lets_nothing_through_until_it_heals(worker: Worker, broker: Broker, kind: str) -> None:
    line = await worker.connected(Api.FETCH)
    # To one broker only: whole exchanges with the other one show that there was time enough to get through.
    worker.link.cut(replace(CUTS[kind], port=broker.ports[0]))
    await ask(line, Api.FETCH, 1)
    waiting = asyncio.create_task(answer(line))
    if kind == "cut_deaf":
        await eventually(lambda: broker.heard == [0, 1], "a worker that hears nothing is heard")
    await worker.connected(Api.FETCH, 7, port=worker.ports[1])
    assert not waiting.done()
    assert (1 in broker.heard) == (kind == "cut_deaf")
    worker.link.heal()
    assert await waiting == 1


async def test_a_cut_may_lose_what_was_under_way(worker: Worker, broker: Broker) -> None:
    line = await worker.connected(Api.FETCH)
    worker.link.cut(replace(CUTS["cut_lost"], port=broker.ports[0]))
    await ask(line, Api.FETCH, 1)
    await worker.connected(Api.FETCH, 7, port=worker.ports[1])
    worker.link.heal()
    with pytest.raises(ConnectionResetError):
        await answer(line)
    await worker.connected(Api.FETCH, 2)
    assert broker.heard == [0, 7, 2]


async def test_a_cut_may_leave_connections_behind_that_are_open_and_carry_nothing(
    worker: Worker, broker: Broker
) -> None:
    old = await worker.connected(Api.FETCH)
    worker.link.cut(replace(CUTS["cut_forgotten"], port=broker.ports[0]))
    await ask(old, Api.FETCH, 1)
    await worker.connected(Api.FETCH, 7, port=worker.ports[1])
    worker.link.heal()
    await ask(old, Api.FETCH, 2)
    waiting = asyncio.create_task(answer(old))
    await worker.connected(Api.FETCH, 3)
    assert broker.heard == [0, 7, 3]
    assert not waiting.done()
    waiting.cancel()


async def test_a_cut_with_resets_ends_old_connections_and_new_ones(worker: Worker, broker: Broker) -> None:
    line = await worker.connected(Api.FETCH)
    worker.link.cut(CUTS["cut_reset"])
    with pytest.raises(ConnectionResetError):
        await answer(line)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await worker.connected(Api.FETCH, 1)
    worker.link.heal()
    await worker.connected(Api.FETCH, 2)
    assert broker.heard == [0, 2]


async def test_a_cut_of_one_coordinator_leaves_all_else_alone(worker: Worker, broker: Broker) -> None:
    fetches, group = await worker.connected(Api.FETCH), await worker.connected(Api.HEARTBEAT, 1)
    worker.link.cut(CUTS["cut_group"])
    await ask(group, Api.HEARTBEAT, 2)
    await ask(fetches, Api.FETCH, 3)
    assert await answer(fetches) == 3
    assert broker.heard == [0, 1, 3]
    worker.link.heal()
    assert await answer(group) == 2


async def test_a_coordinator_that_resets_is_the_only_one_to_do_so(worker: Worker) -> None:
    fetches, group = await worker.connected(Api.FETCH), await worker.connected(Api.HEARTBEAT, 1)
    worker.link.cut(CUTS["cut_group_reset"])
    with pytest.raises(ConnectionResetError):
        await answer(group)
    with pytest.raises(ConnectionResetError):
        await worker.connected(Api.HEARTBEAT, 2)
    await ask(fetches, Api.FETCH, 3)
    assert await answer(fetches) == 3


async def test_a_worker_that_served_and_ends_by_itself_is_noted_and_replaced(tmp_path: Path) -> None:
    script = f"echo {STARTED!r}; exit 3"
    fleet = Fleet(bootstrap_servers="", prefix="t.", logs=tmp_path, command=("sh", "-c", script))
    ended = await fleet.start_worker()
    await ended.wait()
    fleet.command = ("sleep", "60")
    nemesis = Nemesis(fleet, None)
    await nemesis.work([Fault(after_s=0, kind="join", draw=0)])
    assert nemesis.fell == ["worker 0 ended with 3"]
    assert [worker.returncode for worker in fleet.workers] == [3, None, None]
    for worker in fleet.workers[1:]:
        worker.kill()
        await worker.wait()


def test_a_schedule_knows_every_kind_and_a_long_one_has_each() -> None:
    every = (*CLUSTER_KINDS, *NETWORK_KINDS, *KINDS)
    assert {fault.kind for fault in schedule(5, faults=2 * len(every), kinds=every)} == set(every)
    assert set(CUTS) < set(NETWORK_KINDS)
