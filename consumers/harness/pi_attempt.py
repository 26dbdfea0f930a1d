"""One attempt of Pi's: from its line to its end, and what is to be cleaned up behind it."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from agentstream.consumers.harness.pi_protocol import CancelLine, DoneLine, EventLine, RunLine, ToolCallLine
from agentstream.consumers.harness.pi_tools import PythonTool, ToolCalls
from agentstream.consumers.harness.pi_workspace import Place, Workspace
from agentstream.consumers.harness.port import Failed, Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.harness.sidecar_channel import Lost
from agentstream.consumers.harness.sidecar_link import LineTooLong, SidecarLink
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.errors import ErrorCode

logger = logging.getLogger(__name__)
CANCEL_S = 1.5
"""For the sidecar to end a cancelled run; it does so by force after 1 s. The promise to the caller is 2."""
_DID_NOT_END: Final = Failed(code=ErrorCode.INTERNAL, detail="the run did not end")


class Attempt:
    """One run of one request: from its line to its end, and what is to be cleaned up behind it."""

    def __init__(
        self, request: HarnessRequest, link: SidecarLink, place: Place, tools: Mapping[str, PythonTool]
    ) -> None:
        self.place = place
        self.terminal: Terminal = _DID_NOT_END
        self.ended = False
        """Whether no more events come: `terminal` says how it ended."""
        self._run = request.attempt_id
        self._may_use_tools = bool(request.tools)
        self._link = link
        self._calls = ToolCalls(link, self._run, tools, request.answer_tool)
        self._channel = link.attach(self._run)
        self._started_tools = False
        self._under_way = False

    async def begin(self, line: RunLine) -> bool:
        """Send the run's line. False: it is too long, and `terminal` says so."""
        self._under_way = True
        try:
            await self._link.send(line)
        except LineTooLong as error:
            self._under_way = False
            self.terminal = Failed(code=ErrorCode.PAYLOAD_TOO_LARGE, detail=str(error))
        return self._under_way

    async def events(self) -> Iterator[HarnessEvent]:
        """Wait for the run's next events: those that have come, maybe none. Not once it has `ended`."""
        await self._channel.arrival()
        return self._arrived()

    def _arrived(self) -> Iterator[HarnessEvent]:
        take = self._channel.take
        while (line := take()) is not None:
            match line:
                case EventLine(event=event):
                    if event.type == "tool.started":
                        self._started_tools = True
                    yield event
                case ToolCallLine() as call:
                    self._calls.start(call)
                case DoneLine() as done:
                    self.terminal = terminal_of(done)
                    self.ended, self._under_way = True, False
                    return
                case Lost() as lost:
                    self.terminal = _crash(lost)
                    self.ended = True
                    return

    @property
    def left_nothing(self) -> bool:
        """Whether it ended by itself and had nothing that could be left behind: no tools, no directory."""
        return not self._under_way and not self._may_use_tools and not self.place.own

    def detach(self) -> None:
        """Wants no more lines. All that is to be done for one that left nothing; else it is to be closed."""
        self._link.detach(self._run)

    async def close(self, workspace: Workspace) -> None:
        """Ends what still runs, kills what it left, removes its directory."""
        await self._calls.close()
        lost = self._under_way and not self._link.is_alive
        if self._under_way and not lost:
            await self._cancel()
        self.detach()
        # A sidecar that died may have started a tool and not lived to say so; a cancelled one likewise.
        await workspace.close_place(self.place, sweep=self._may_use_tools and (self._started_tools or self._under_way))

    async def _cancel(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._link.send(CancelLine(run=self._run))
                while not isinstance(self._channel.take(), DoneLine | Lost):
                    await self._channel.arrival()
                return
        logger.warning("the sidecar did not end run %s in time", self._run)


def terminal_of(done: DoneLine) -> Terminal:
    """What a run's last line says."""
    if done.status == "completed":
        return Finished(finish_reason=done.finish_reason or "stop", cost=done.cost)
    if done.error is None:
        # Nobody here asked for it: someone ends the sidecar, and it takes its runs along.
        return Failed(code=ErrorCode.HARNESS_UNAVAILABLE, detail="the Pi sidecar shuts down")
    known = {code.value for code in ErrorCode}
    return Failed(
        code=ErrorCode(done.error.code) if done.error.code in known else ErrorCode.INTERNAL,
        detail=done.error.detail,
        retriable=done.error.retriable,
        retry_after_ms=done.error.retry_after_ms,
    )


def redacted(terminal: Terminal, request: HarnessRequest, redactor: Redactor) -> Terminal:
    """The same without secrets: the worker's, and those of the run's own credentials."""
    if isinstance(terminal, Finished):
        return terminal
    credentials = request.credentials
    own = Redactor([credentials.api_key, *credentials.headers.values()]) if credentials else Redactor()
    return replace(terminal, detail=own.text(redactor.text(terminal.detail)))


def _crash(lost: Lost) -> Failed:
    how = f"was killed by signal {-lost.return_code}" if lost.return_code < 0 else f"ended with {lost.return_code}"
    return Failed(code=ErrorCode.HARNESS_CRASHED, detail=f"the Pi sidecar {how}", lost_with_others=not lost.alone)
