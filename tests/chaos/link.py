"""One worker's way to the brokers: a relay that can hold, or reset, what passes through it."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

from tests.support.frames import HOST, Call, read_frame, redirected, write_frame

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CORRELATION_BYTES = 4


class Direction(Enum):
    """Which way bytes go."""

    UP = auto()
    """From the worker to the brokers."""
    DOWN = auto()
    """From the brokers to the worker."""


class Ending(Enum):
    """What becomes of the connections that are cut."""

    RESET_AT_ONCE = auto()
    """They are reset when the cut begins, and so is every new one."""
    RESET_AT_LAST = auto()
    """They are silent, and reset when the cut heals: what was under way is lost."""
    GO_ON = auto()
    """They are silent, and go on when the cut heals: what was under way arrives late."""
    FORGOTTEN = auto()
    """They are silent for ever, open as they are; new ones pass when the cut heals. So does a firewall that lost its
    memory."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What fails between a worker and the brokers."""

    ending: Ending = Ending.GO_ON
    """What becomes of the connections."""
    directions: frozenset[Direction] = frozenset(Direction)
    """Which ways nothing passes."""
    apis: frozenset[int] | None = None
    """Only connections that carried one of these requests; None: all."""
    port: int | None = None
    """Only connections to the broker that listens there; None: to all."""

    def concerns(self, pipe: "_Pipe") -> bool:
        """Whether a connection is cut."""
        return (self.apis is None or bool(self.apis & pipe.carried)) and self.port in (None, pipe.port)


class Link:
    """Listens on one port for each broker. Whoever opens it closes it."""

    def __init__(self, brokers: Sequence[tuple[str, int]]) -> None:
        self._brokers = brokers
        self._servers: list[asyncio.Server] = []
        self._pipes: set[_Pipe] = set()
        self._cut: Cut | None = None
        self._healed = asyncio.Event()
        self.ports: dict[int, int] = {}

    @property
    def bootstrap_servers(self) -> str:
        """What the worker connects to."""
        return ",".join(f"{HOST}:{port}" for port in self.ports.values())

    async def open(self) -> None:
        """Listen."""
        for host, port in self._brokers:
            server = await asyncio.start_server(partial(self._serve, host, port), HOST, 0)
            self._servers.append(server)
            self.ports[port] = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End every connection, and listen no longer."""
        for server in self._servers:
            server.close()
        for pipe in self._pipes:
            pipe.reset()
        while self._pipes:
            await asyncio.sleep(0)

    def cut(self, cut: Cut) -> None:
        """From now on this fails."""
        self._cut = cut
        self._healed.clear()
        if cut.ending is Ending.RESET_AT_ONCE:
            self._reset(cut)
        if cut.ending is Ending.FORGOTTEN:
            for pipe in self._pipes:
                pipe.forgotten |= cut.concerns(pipe)

    def heal(self) -> None:
        """Nothing fails any more."""
        cut, self._cut = self._cut, None
        if cut is not None and cut.ending is Ending.RESET_AT_LAST:
            self._reset(cut)
        self._healed.set()

    def _reset(self, cut: Cut) -> None:
        for pipe in self._pipes:
            if cut.concerns(pipe):
                pipe.reset()

    async def passes(self, pipe: "_Pipe", direction: Direction) -> None:
        """Return when something may pass. Raises ConnectionResetError if it never will."""
        while (cut := self._cut) is not None and cut.concerns(pipe) and direction in cut.directions:
            if cut.ending is Ending.RESET_AT_ONCE:
                raise ConnectionResetError
            if cut.ending is Ending.FORGOTTEN:
                pipe.forgotten = True
                return
            await self._healed.wait()

    async def _serve(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker = await asyncio.open_connection(host, port)
        except OSError:  # the broker is down, as it may be
            _reset(writer)
            return
        pipe = _Pipe(self, (reader, writer), broker, port)
        self._pipes.add(pipe)
        try:
            await pipe.run()
        finally:
            self._pipes.discard(pipe)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class _Pipe:
    """One connection of a worker, and ours to a broker."""

    link: Link
    worker: _Streams
    broker: _Streams
    port: int
    """Where the broker listens."""
    carried: set[int] = field(default_factory=set)
    """The APIs of the requests it carried so far."""
    forgotten: bool = False
    """Whether all that it carries is dropped from now on."""
    _asked: dict[bytes, Call] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> None:
        """Pass frames both ways until one side ends."""
        self._tasks = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self.reset()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, OSError | asyncio.IncompleteReadError):
                raise ended
        for _, writer in (self.worker, self.broker):
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def reset(self) -> None:
        """End both sides at once."""
        for task in self._tasks:
            task.cancel()
        for _, writer in (self.worker, self.broker):
            _reset(writer)

    async def _up(self) -> None:
        while True:
            call = Call(await read_frame(self.worker[0]), 0)
            self.carried.add(call.api)
            self._asked[_correlation(call)] = call
            await self.link.passes(self, Direction.UP)
            if not self.forgotten:
                await write_frame(self.broker[1], call.frame)

    async def _down(self) -> None:
        while True:
            answer = await read_frame(self.broker[0])
            call = self._asked.pop(answer[:_CORRELATION_BYTES])
            await self.link.passes(self, Direction.DOWN)
            if not self.forgotten:
                await write_frame(self.worker[1], redirected(call, answer, self.link.ports))


def _correlation(call: Call) -> bytes:
    """What the answer to a call begins with."""
    return call.frame[4:8]


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset in place of a proper end, as a host does that has forgotten the connection."""
    if (plug := writer.get_extra_info("socket")) is not None and not writer.is_closing():
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
