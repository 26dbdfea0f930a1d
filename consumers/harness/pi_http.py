"""The `pi-http` harness: the Pi coding agent in a sidecar behind HTTP, which many workers may share.

PiHttpHarness.run(HarnessRequest) -> HarnessEvent …, one Finished | Failed
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from agentstream.consumers.harness.pi_attempt import CANCEL_S, redacted, terminal_of
from agentstream.consumers.harness.pi_http_link import HttpLink, WrongSidecar, line_of
from agentstream.consumers.harness.pi_http_stream import HttpPlace, RunStream, Trouble
from agentstream.consumers.harness.pi_protocol import (
    DoneLine,
    EventLine,
    ReadyLine,
    RunLine,
    ToolCallLine,
    UnreadableLine,
    WaitingLine,
    parse_line,
)
from agentstream.consumers.harness.pi_request import run_line
from agentstream.consumers.harness.pi_tools import PythonTool, ToolCalls
from agentstream.consumers.harness.port import Failed, HarnessEvent, HarnessRequest, Terminal, Waiting
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.errors import ErrorCode

logger = logging.getLogger(__name__)
_AGAIN_S = 0.2
_CLEAN_S = 10.0
"""For the sidecar to kill and remove what a run left there; 10 ms as a rule."""


class PiHttpHarness:
    """Runs Pi elsewhere. `async with` waits for the sidecar and raises SidecarUnavailable if it is not there in time.

    Pi's tools run where the sidecar does, in directories of its own; `tools` are answered here, in Python. Closing it
    cuts what is under way, which cancels it there.
    """

    kind = "pi-http"

    def __init__(
        self, place: HttpPlace, *, tools: tuple[PythonTool, ...] = (), redactor: Redactor | None = None
    ) -> None:
        self._place = place
        self._tools = {tool.name: tool for tool in tools}
        self._redactor = redactor or Redactor()
        self._link: HttpLink | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._versions: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        link = HttpLink(self._place)
        try:
            self._heard(await _until_there(link))
        except BaseException:
            await link.close()
            raise
        self._link = link
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*self._closings, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of Pi, Node and the protocol, as the sidecar said last."""
        return self._versions

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """It takes none: all that a request may choose has a field of its own."""
        return f"the pi-http harness takes no options, not {', '.join(sorted(options))[:200]!r}" if options else None

    async def health(self) -> str | None:
        """None if a run could start now, else what is wrong."""
        if self._link is None:
            return "the Pi harness is not open"
        try:
            self._heard(await self._link.health())
        except SidecarUnavailable as error:
            return self._redactor.text(str(error))
        return None

    async def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        """Run Pi once. The contract is the port's."""
        if self._link is None:
            raise RuntimeError("open the harness before it runs anything")
        if request.model is None:
            yield Failed(code=ErrorCode.MODEL_UNAVAILABLE, detail="no model was chosen")
            return
        attempt = HttpAttempt(request, self._link, self._tools, self._heard)
        line = run_line(request, None, tools=tuple(self._tools.values()), window=None, shell_prefix=())
        try:
            async with aclosing(attempt.events(line)) as events:
                async for event in events:
                    yield event
        finally:
            await self._close(attempt)
        yield redacted(attempt.terminal, request, self._redactor)

    async def _close(self, attempt: "HttpAttempt") -> None:
        """Ends the attempt in a task of its own: whoever cancels the run twice must not stop its cleaning up."""
        closing = asyncio.create_task(attempt.close(), name="close-pi-http")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        await asyncio.shield(closing)

    def _heard(self, ready: ReadyLine) -> None:
        self._versions = {"pi": ready.pi, "node": ready.node, "protocol": str(ready.protocol)}


class HttpAttempt:
    """One run of one request over one connection: closing it cancels the run."""

    def __init__(
        self,
        request: HarnessRequest,
        link: HttpLink,
        tools: Mapping[str, PythonTool],
        heard: Callable[[ReadyLine], None],
    ) -> None:
        self.terminal: Terminal = Failed(code=ErrorCode.INTERNAL, detail="the run did not end")
        self._request = request
        self._link = link
        self._heard = heard
        self._calls = ToolCalls(link, request.attempt_id, tools, request.answer_tool)
        self._stream: RunStream | None = None
        self._under_way = False

    async def events(self, line: RunLine) -> AsyncGenerator[HarnessEvent | Waiting, None]:
        """The run's events; `terminal` says how it ended."""
        try:
            stream = await self._open(line_of(line))
            expected = 1
            while True:
                match _numbered(await stream.take(), expected):
                    case None:
                        continue
                    case WaitingLine():
                        yield Waiting()
                        continue
                    case EventLine(event=event):
                        yield event
                    case ToolCallLine() as call:
                        self._calls.start(call)
                    case DoneLine() as done:
                        await self._finish(done, stream)
                        return
                expected += 1
        except Trouble as trouble:
            self.terminal = trouble.failed

    async def close(self) -> None:
        """Ends what still runs; returns when nothing of it is left, or the sidecar does not say so in time."""
        await self._calls.close()
        if self._stream is not None:
            await self._stream.close()
        if not self._under_way or not self._request.tools:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._link.cancel(self._request.attempt_id)
                return
        logger.warning("the sidecar did not end run %s in time", self._request.attempt_id)

    async def _open(self, raw: bytes) -> RunStream:
        deadline = asyncio.get_running_loop().time() + self._request.limits.total_ms / 1000
        self._under_way = True
        self._stream = stream = await self._link.open_run(raw, deadline=deadline)
        self._heard(await stream.ready())
        return stream

    async def _finish(self, done: DoneLine, stream: RunStream) -> None:
        """A process that says ok and dies has failed: `done` counts once the answer has ended as it should."""
        try:
            async with asyncio.timeout(_CLEAN_S):
                await stream.rest()
            self._under_way = False
        except TimeoutError:
            logger.warning("the sidecar does not come to an end with run %s", self._request.attempt_id)
        self.terminal = terminal_of(done)


def _numbered(raw: bytes, expected: int) -> EventLine | ToolCallLine | DoneLine | WaitingLine | None:
    """A line of a run, None for a sign of life. Raises Trouble."""
    if not raw:
        return None
    try:
        line = parse_line(raw)
        if isinstance(line, WaitingLine):
            return line
        if not isinstance(line, EventLine | ToolCallLine | DoneLine):
            raise UnreadableLine(f"a {line.type} in a run")
        if line.n != expected:
            raise UnreadableLine(f"line {line.n} came out of order")
    except UnreadableLine as error:
        raise Trouble(ErrorCode.HARNESS_CRASHED, f"the Pi sidecar wrote a line that cannot be read: {error}") from None
    return line


async def _until_there(link: HttpLink) -> ReadyLine:
    loop = asyncio.get_running_loop()
    patience = loop.time() + link.place.restart_s
    while True:
        try:
            return await link.health()
        except WrongSidecar:
            raise
        except SidecarUnavailable:
            if loop.time() + _AGAIN_S >= patience:
                raise
        await asyncio.sleep(_AGAIN_S)
