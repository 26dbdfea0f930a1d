"""The lines of one run as they come from a Pi sidecar behind HTTP, and what can be wrong with them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from agentstream.consumers.harness.pi_protocol import MAX_LINE_BYTES, PROTOCOL, ReadyLine, UnreadableLine, parse_line
from agentstream.consumers.harness.port import Failed
from agentstream.schemas.errors import ErrorCode

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpPlace:
    """Where a sidecar listens, and how long it may take for what. Plain values, from the worker's settings."""

    url: str
    """Its address, such as http://127.0.0.1:8790."""
    token: str | None = field(default=None, repr=False)
    """The bearer token; a secret."""
    connect_s: float = 5.0
    """To take a connection."""
    silence_s: float = 20.0
    """Between two pieces of an answer: in silence the sidecar sends an empty line every 5 s."""
    restart_s: float = 20.0
    """For one that is away or stopping to be there again, before a run fails for it."""

    @property
    def name(self) -> str:
        """Host and port, for people: a URL may hold a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"


class Trouble(Exception):
    """The run cannot go on. Its `failed` says why."""

    def __init__(self, code: ErrorCode, detail: str, *, retriable: bool | None = None, lost: bool = False) -> None:
        super().__init__(detail)
        self.failed = Failed(code=code, detail=detail, retriable=retriable, lost_with_others=lost)


class Away(Trouble):
    """The sidecar takes nothing at the moment; it may be there again in a second."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.HARNESS_UNAVAILABLE, detail)


class RunStream:
    """The lines of one run, in order. To be closed: before the last one that cancels the run."""

    def __init__(
        self, response: httpx.Response, place: HttpPlace, deadline: float, *, closed: Callable[[], Awaitable[None]]
    ) -> None:
        self._response = response
        self._chunks = response.aiter_raw()
        self._place = place
        self._closed = closed
        self._deadline = deadline
        self._lines: deque[bytes] = deque()
        self._piece: list[bytes] = []
        self._piece_bytes = 0

    async def take(self) -> bytes:
        """The next line, empty if it is a sign of life. Raises Trouble, also if the answer ends."""
        while not self._lines:
            chunk = await self._chunk()
            if chunk is None:
                raise _lost("the connection to the Pi sidecar was lost")
            self._split(chunk)
        return self._lines.popleft()

    async def ready(self) -> ReadyLine:
        """The first line. Raises Trouble."""
        try:
            line = parse_line(await self.take())
        except UnreadableLine:
            line = None
        if not isinstance(line, ReadyLine) or line.protocol != PROTOCOL:
            raise Trouble(ErrorCode.HARNESS_UNAVAILABLE, "the Pi sidecar speaks another protocol", retriable=False)
        return line

    async def rest(self) -> None:
        """Return at the end of the answer, when nothing of the run is left. Raises Trouble."""
        while await self._chunk() is not None:
            pass

    async def close(self) -> None:
        """Let go of the connection. Once."""
        await self._response.aclose()
        await self._closed()

    async def _chunk(self) -> bytes | None:
        try:
            return await bounded(anext(self._chunks, None), self._deadline)
        except httpx.ReadTimeout:
            raise _lost(f"the Pi sidecar said nothing for {self._place.silence_s:g} s") from None
        except httpx.HTTPError:
            raise _lost("the connection to the Pi sidecar was lost") from None

    def _split(self, chunk: bytes) -> None:
        first, *others = chunk.split(b"\n")
        self._piece.append(first)
        self._piece_bytes += len(first)
        if self._piece_bytes > MAX_LINE_BYTES:
            raise Trouble(ErrorCode.HARNESS_CRASHED, f"the Pi sidecar wrote a line longer than {MAX_LINE_BYTES} bytes")
        if others:
            self._lines.append(b"".join(self._piece))
            self._lines.extend(others[:-1])
            self._piece, self._piece_bytes = [others[-1]], len(others[-1])


async def bounded(work: Awaitable[T], deadline: float) -> T:
    """Do it before the run's total time is over. Raises Trouble."""
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout:
            return await work
    except TimeoutError:
        if not timeout.expired():
            raise
        raise Trouble(ErrorCode.TOTAL_TIMEOUT, "the run took too long") from None


def _lost(detail: str) -> Trouble:
    # Whose fault it was nobody here knows: other workers' runs were in that process, too.
    return Trouble(ErrorCode.HARNESS_CRASHED, detail, lost=True)
