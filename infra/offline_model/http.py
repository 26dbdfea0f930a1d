"""As much of HTTP/1.1 as one client library needs, on raw streams: a fault must be able to cut them anywhere."""

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agentstream.infra.offline_model.script import JsonObject
from agentstream.infra.offline_model.wire import error_body

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """One request, read whole."""

    method: str
    """GET or POST."""
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """As it came."""


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """The next request of a connection, or None at its end. Raises ValueError if it is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = request_line.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        length = int(headers.get("content-length", "0"))
        if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
            raise ValueError("only bodies with a reasonable content-length are read")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return HttpRequest(method=method, path=target.partition("?")[0], headers=headers, body=body)


def write_json(
    writer: asyncio.StreamWriter, status: int, body: JsonObject, headers: Mapping[str, str] | None = None
) -> None:
    """A whole response."""
    payload = json.dumps(body).encode()
    named = {"content-type": "application/json", "content-length": str(len(payload)), **(headers or {})}
    writer.write(_head(status, named) + payload)


class EventStream:
    """A response of server-sent events, in HTTP chunks."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.write(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))

    async def send(self, data: str) -> None:
        """One event."""
        payload = f"data: {data}\n\n".encode()
        self._writer.write(f"{len(payload):x}\r\n".encode() + payload + b"\r\n")
        await self._writer.drain()

    async def end(self) -> None:
        """The last chunk; the connection can be used again."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


class LoopbackServer(ABC):
    """Answers on loopback. `async with` opens and closes it; `base_url` is known once it is open.

    Closing cuts the calls that are under way.
    """

    def __init__(self, *, port: int = 0) -> None:
        """`port` 0 is a free one."""
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.cut_calls = 0
        """Calls whose client went away before their end."""

    @property
    def base_url(self) -> str:
        """What goes into a client's settings."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=MAX_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @abstractmethod
    async def _answer(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False if the connection cannot be used again. ValueError becomes a 400."""

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while request := await read_request(reader):
                if not await self._answer(request, writer):
                    break
                await writer.drain()
        except ConnectionError:
            self.cut_calls += 1
        except (ValueError, asyncio.LimitOverrunError) as error:
            write_json(writer, 400, error_body(str(error), "invalid_request_error"))
        except asyncio.CancelledError:
            # The server closes. Python 3.11's streams log a cancelled connection as an unhandled error: it ends here.
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}\r\n{lines}\r\n".encode()
