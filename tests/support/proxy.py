"""A TCP proxy that understands Kafka's framing, to make exactly one thing go wrong at exactly one moment.

    async with KafkaProxy(bootstrap_servers) as proxy:
        rule = proxy.on(Api.END_TXN, client="a", do=Hold.REQUEST)
        await rule.hit()      # somebody ran into it
        rule.lift()           # what is held goes on, and nothing more matches

It stands before a broker that knows nothing of it: the addresses in the broker's answers are rewritten on their way, so
that a client which starts with the proxy's address never learns another.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from tests.support.frames import HOST, Api, Call, read_frame, redirected, write_frame
from tests.support.proxy_rules import Action, Cut, Hold, Rewrite, Rule
from tests.support.waiting import patience

__all__ = ["Cut", "Hold", "KafkaProxy", "Rewrite", "Rule"]


class KafkaProxy:
    """Listens on one port for each broker of a cluster. `async with` starts and ends it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._upstream = [(host, int(port)) for host, port in (s.rsplit(":", 1) for s in bootstrap_servers.split(","))]
        self._ports: dict[int, int] = {}
        self._servers: list[asyncio.Server] = []
        self._rules: list[Rule] = []
        self._connections: dict[int, _Connection] = {}
        self._count = 0
        self._changed = asyncio.Condition()
        self.calls: list[Call] = []

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to."""
        return ",".join(f"{HOST}:{port}" for port in self._ports.values())

    async def __aenter__(self) -> Self:
        for host, port in self._upstream:
            server = await asyncio.start_server(self._serve(host, port), HOST, 0)
            self._servers.append(server)
            self._ports[port] = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections.values()):
            connection.close()
        while self._connections:
            await asyncio.sleep(0)

    def on(
        self,
        *apis: Api,
        do: Action,
        client: str | None = None,
        where: Callable[[Call], bool] = lambda _: True,
        times: int | None = None,
    ) -> Rule:
        """From now on do this to calls of these APIs (none named: all), of this client, for which `where` holds."""

        def matches(call: Call) -> bool:
            return (not apis or call.api in apis) and client in (None, call.client_id) and where(call)

        rule = Rule(matches, do, times)
        self._rules.append(rule)
        return rule

    def made(self, api: Api, client: str, *, since: int = 0) -> list[Call]:
        """The calls of a client so far; `since` is an earlier `len(proxy.calls)`."""
        return [call for call in self.calls[since:] if call.api == api and call.client_id == client]

    async def until_made(self, api: Api, client: str, times: int, *, since: int = 0) -> None:
        """Wait until a client has made so many calls."""
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: len(self.made(api, client, since=since)) >= times)

    @property
    def connections_made(self) -> int:
        """The number of the newest connection."""
        return self._count

    def open_connections(self, client: str) -> int:
        """How many connections of a client are open now."""
        return sum(connection.client_id == client for connection in self._connections.values())

    async def rule_for(self, call: Call) -> Rule | None:
        """Note a call, and find the rule that it runs into."""
        async with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        for rule in self._rules:
            if await rule.take(call):
                return rule
        return None

    def rewrite_addresses(self, call: Call, answer: bytes) -> bytes:
        """The answer with the proxy's ports in place of the brokers'."""
        return redirected(call, answer, self._ports)

    def _serve(
        self, host: str, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._count += 1
            number = self._count
            try:
                up_reader, up_writer = await asyncio.open_connection(host, port)
            except OSError:  # the broker is down, as it may be
                writer.close()
                return
            connection = _Connection(self, number, (reader, writer), (up_reader, up_writer))
            self._connections[number] = connection
            try:
                await connection.run()
            finally:
                del self._connections[number]

        return serve


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client's connection, and ours to the broker."""

    def __init__(self, proxy: KafkaProxy, number: int, client: Streams, broker: Streams) -> None:
        self._proxy = proxy
        self._number = number
        self._client_reader, self._client_writer = client
        self._broker_reader, self._broker_writer = broker
        self._asked: deque[tuple[Call, Rule | None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self.client_id: str | None = None

    async def run(self) -> None:
        """Pass frames in both directions until one side closes."""
        self._tasks = [asyncio.create_task(self._requests()), asyncio.create_task(self._answers())]
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self.close()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, OSError | asyncio.IncompleteReadError):
                raise ended
        for writer in (self._client_writer, self._broker_writer):
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def close(self) -> None:
        """End both sides."""
        for task in self._tasks:
            task.cancel()
        self._client_writer.close()
        self._broker_writer.close()

    async def _requests(self) -> None:
        while True:
            call = Call(await read_frame(self._client_reader), self._number)
            self.client_id = call.client_id
            rule = await self._proxy.rule_for(call)
            action = None if rule is None else rule.action
            if action is Cut.BEFORE:
                return
            if rule is not None and action is Hold.REQUEST:
                await rule.lifted()
            self._asked.append((call, rule))
            await write_frame(self._broker_writer, call.frame)

    async def _answers(self) -> None:
        while True:
            answer = await read_frame(self._broker_reader)
            call, rule = self._asked.popleft()
            answer = self._proxy.rewrite_addresses(call, answer)
            action = None if rule is None else rule.action
            if action is Cut.AFTER:
                return
            if rule is not None and action is Hold.ANSWER:
                await rule.lifted()
            if isinstance(action, Rewrite):
                answer = call.rewritten(answer, action.change)
            await write_frame(self._client_writer, answer)
            if rule is not None:
                await rule.note_answer()
