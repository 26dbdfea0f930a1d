"""A connection that does not answer is given up in time, and with it all to the same broker that are as silent.

What forgot a connection (a firewall that was restarted, a load balancer) drops what it carries without a word, and that
looks like a broker that thinks. aiokafka waits 40 s for each answer, on one connection after the other, and goes on
asking for metadata over a connection that gave none. After a cut of 3 s a worker whose connections were forgotten did
nothing for 85 s if it had just joined its group, and nothing ever again if it owned partitions.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import NodeNotReadyError, RequestTimedOutError

from agentstream.producers.closed_transports import expect_closed_transports
from agentstream.producers.connection import KafkaConnection

ANSWER_SECONDS: Final = 10.0
"""For all that brokers answer at once. They may wait for one of their own that died: 9 s, until its session is over."""


def expect_answers(
    client: Any,
    connection: KafkaConnection,
    seconds: float | None = None,
    *,
    others: Mapping[int, float] | None = None,
    given_up: Callable[[], None] = lambda: None,
) -> None:
    """Have an aiokafka client, not started yet, wait so long for a connection and for each answer.

    `others` by the request's API key: what a broker holds back on purpose, or what is asked to find out soon. A request
    fails as it does in aiokafka when it times out, and so do those on connections to the same broker that got nothing
    for as long, of every client with this `connection`: all are tried again over new ones. A worker has several for
    each of its partitions, and one after the other would have to find out by itself. One that did nothing, and is
    well, costs no more than to connect again.

    `given_up` is called whenever a connection is closed on which something was asked: that may still arrive, late.
    """
    seconds = ANSWER_SECONDS if seconds is None else seconds
    client._request_timeout_ms = round(seconds * 1000)
    expect_closed_transports(client)
    expecting = _Expecting(client, connection, seconds, others or {})
    expecting.given_up = given_up
    connection.clients.add(expecting)
    client.send = expecting.send
    client._on_connection_closed = expecting.on_closed
    client._metadata_update = expecting.update_metadata


class _Expecting:
    """What takes the place of three methods of a client."""

    def __init__(self, client: Any, connection: KafkaConnection, seconds: float, others: Mapping[int, float]) -> None:
        self._client = client
        self._connection = connection
        self._seconds = seconds
        self._others = others
        # Half: what was asked just before may have been answered since.
        self._silence = min([seconds, *others.values()]) / 2
        self._send, self._update = client.send, client._metadata_update
        self._closed = client._on_connection_closed
        self.given_up: Callable[[], None] = lambda: None

    async def send(self, node: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        if request.API_KEY not in self._others:
            return await self._send(node, request, group=group)
        if not await self._client.ready(node, group=group):
            raise NodeNotReadyError(f"no connection to broker {node}")
        one = self._client._conns[node, group]
        # A connection looks at its bound as it sends.
        usual, one._request_timeout = one._request_timeout, self._others[request.API_KEY]
        try:
            answer = one.send(request)
        finally:
            one._request_timeout = usual
        try:
            return await answer
        except TimeoutError as error:
            one.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError from error

    def on_closed(self, one: Any, reason: CloseReason) -> None:
        if reason is CloseReason.CONNECTION_TIMEOUT:
            self.given_up()
            for expecting in tuple(self._connection.clients):
                expecting.close_silent(one.host, one.port, time.monotonic() - self._silence)
        self._closed(one, reason)

    async def update_metadata(self, *args: Any) -> bool:
        began = time.monotonic()
        updated: bool = await self._update(*args)
        if time.monotonic() - began >= self._seconds:
            for one in self._silent(began):
                if one._requests:
                    one.close(reason=CloseReason.CONNECTION_TIMEOUT)
        return updated

    def close_silent(self, host: str, port: int, since: float) -> None:
        if self._client._loop is asyncio.get_running_loop():
            for one in self._silent(since):
                if (one.host, one.port) == (host, port):
                    asked = bool(one._requests)
                    one.close(reason=CloseReason.CONNECTION_BROKEN)
                    if asked:
                        self.given_up()

    def _silent(self, since: float) -> list[Any]:
        return [one for one in self._client._conns.values() if one.connected() and one._last_action <= since]
