"""As much of HTTP/1.1 as one client library needs, on raw streams: a fault must be able to cut them anywhere."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from agentstream.infra.offline_model.script import JsonObject

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


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}\r\n{lines}\r\n".encode()
