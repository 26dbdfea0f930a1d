"""The `pi` harness: the Pi coding agent in a long-lived Node sidecar, many runs at once.

PiHarness.run(HarnessRequest) -> HarnessEvent …, one Finished | Failed
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from agentstream.consumers.harness.launcher import Command, Launcher, LocalLauncher
from agentstream.consumers.harness.pi_attempt import Attempt, redacted
from agentstream.consumers.harness.pi_protocol import MAX_LINE_BYTES, RunLine
from agentstream.consumers.harness.pi_request import run_line
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.pi_workspace import Place, Workspace
from agentstream.consumers.harness.port import Failed, Finished, HarnessEvent, HarnessRequest, Terminal, Waiting
from agentstream.consumers.harness.sidecar import Patience, Sidecar
from agentstream.consumers.harness.sidecar_link import SidecarLink, SidecarUnavailable
from agentstream.consumers.harness.sweep import MARK
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.errors import ErrorCode

APART_AT_ONCE = 4
"""Runs with a process of their own, side by side. A sidecar takes 143 MB, and half a second of a core to start;
one at a time, 16 runs of 5 s whose sidecar had died took 80 s, and eleven of them failed for waiting too long."""
_SAYS_IT_WAITS_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PiSettings:
    """What the harness is made of. Plain values; who finds them is the composition root."""

    node: Path
    """Node's program, 22.19 or newer."""
    sidecar: Path
    """The sidecar's `main.js`, with its packages beside it."""
    temporary: Path
    """Where throwaway directories go."""
    path: str = "/usr/local/bin:/usr/bin:/bin"
    """PATH of the sidecar and of the shell tool."""
    lang: str = "C.UTF-8"
    """LANG of both."""
    node_arguments: tuple[str, ...] = ()
    """Arguments of Node's, such as a heap limit."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More for the sidecar alone, such as a proxy or certificates; never for the shell tool."""
    shell_prefix: tuple[str, ...] = ()
    """Put before each shell's argv, `{workdir}` replaced: a sandbox, see `launcher.bubblewrap_prefix`."""
    patience: Patience = field(default_factory=Patience)
    """How long the sidecar may take for what."""
    window: int | None = None
    """Unacknowledged lines after which a run is paused; None: the sidecar's own, 256."""


class PiHarness:
    """Runs Pi. `async with` starts the sidecar (SidecarUnavailable if it cannot) and ends it with all its processes.

    A run's processes, throwaway directory and lines are its own; no run waits for another's. `tools` are answered
    here, in Python, for runs that are allowed them.
    """

    kind = "pi"

    def __init__(
        self,
        settings: PiSettings,
        *,
        tools: tuple[PythonTool, ...] = (),
        launcher: Launcher | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._settings = settings
        self._tools = {tool.name: tool for tool in tools}
        self._launcher = launcher or LocalLauncher()
        self._redactor = redactor or Redactor()
        self._stack = AsyncExitStack()
        self._workspace = Workspace(settings.temporary)
        self._sidecar: Sidecar | None = None
        self._apart = asyncio.Semaphore(APART_AT_ONCE)
        self._closings: set[asyncio.Task[None]] = set()
        self._versions: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._workspace)
            except OSError as error:
                where = self._settings.temporary
                raise SidecarUnavailable(f"no directory can be made in {where}: {error.strerror}") from error
            sidecar = self._new_sidecar(self._workspace.temporary)
            await stack.enter_async_context(sidecar)
            stack.push_async_callback(self._finish_closings)
            self._sidecar = sidecar
            ready = (await sidecar.link()).ready
            self._versions = {"pi": ready.pi, "node": ready.node, "protocol": str(ready.protocol)}
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of Pi, Node and the pipe's protocol."""
        return self._versions

    @property
    def mark(self) -> str:
        """What the marks of all its processes begin with."""
        return self._workspace.owner.mark

    @property
    def root(self) -> Path:
        """The directory that holds its runs' throwaway directories."""
        return self._workspace.root

    @property
    def sidecar_pid(self) -> int | None:
        """The sidecar's process id, or None while there is none."""
        link = self._sidecar.current if self._sidecar else None
        return link.pid if link else None

    @property
    def sidecar_starts(self) -> int:
        """How many processes the shared sidecar has had."""
        return self._sidecar.starts if self._sidecar else 0

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """Pi takes none: all that a request may choose has a field of its own."""
        return f"the pi harness takes no options, not {', '.join(sorted(options))[:200]!r}" if options else None

    async def health(self) -> str | None:
        """None if a run could start now, else what is wrong."""
        if self._sidecar is None:
            return "the Pi harness is not open"
        if self._sidecar.current is None:
            return self._redactor.text(self._sidecar.problem or "the Pi sidecar is being started")
        return None

    async def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        """Run Pi once. The contract is the port's."""
        if self._sidecar is None:
            raise RuntimeError("open the harness before it runs anything")
        if request.model is None:
            yield Failed(code=ErrorCode.MODEL_UNAVAILABLE, detail="no model was chosen")
            return
        async with AsyncExitStack() as stack:
            if request.apart:
                async for waiting in self._wait_for_room(stack):
                    yield waiting
            try:
                link = await self._link(stack, apart=request.apart)
            except SidecarUnavailable:
                # Why stands in our log and in `health`: it names programs and paths of this machine.
                yield Failed(code=ErrorCode.HARNESS_UNAVAILABLE, detail="the Pi sidecar is not available")
                return
            try:
                attempt = self._attempt(link, request)
            except OSError as error:
                yield Failed(code=ErrorCode.HARNESS_UNAVAILABLE, detail=f"no working directory: {error.strerror}")
                return
            try:
                if await attempt.begin(self._line(request, attempt.place)):
                    while not attempt.ended:
                        for event in await attempt.events():
                            yield event
            finally:
                await self._close(attempt)
            yield self._redacted(attempt.terminal, request)

    async def _wait_for_room(self, stack: AsyncExitStack) -> AsyncIterator[Waiting]:
        """Waits until one more run may have a process of its own; the place is given up with the stack."""
        entering = asyncio.create_task(self._apart.acquire(), name="apart")

        async def leave() -> None:
            entering.cancel()
            await asyncio.wait({entering})
            if not entering.cancelled():
                self._apart.release()

        stack.push_async_callback(leave)
        while not (await asyncio.wait({entering}, timeout=_SAYS_IT_WAITS_S))[0]:
            yield Waiting()

    async def _link(self, stack: AsyncExitStack, *, apart: bool) -> SidecarLink:
        """The sidecar for a run: the shared one, or one of its own, which ends with the stack."""
        if not apart and self._sidecar is not None:
            return await self._sidecar.link()
        try:
            scratch = stack.enter_context(self._workspace.open_scratch())
        except OSError as error:
            raise SidecarUnavailable(f"no temporary directory: {error.strerror}") from error
        return await (await stack.enter_async_context(self._new_sidecar(scratch))).link()

    def _attempt(self, link: SidecarLink, request: HarnessRequest) -> Attempt:
        """Raises OSError if there is no place for it."""
        place = self._workspace.open_place(request.attempt_id, own=bool(request.tools))
        return Attempt(request, link, place, self._tools)

    def _line(self, request: HarnessRequest, place: Place) -> RunLine:
        return run_line(
            request,
            place,
            tools=tuple(self._tools.values()),
            window=self._settings.window,
            shell_prefix=self._settings.shell_prefix,
        )

    async def _close(self, attempt: Attempt) -> None:
        """Ends the attempt in a task of its own: whoever cancels the run twice must not stop its cleaning up."""
        if attempt.left_nothing:
            attempt.detach()
            return
        closing = asyncio.create_task(attempt.close(self._workspace), name=f"close-{attempt.place.mark}")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        await asyncio.shield(closing)

    async def _finish_closings(self) -> None:
        await asyncio.gather(*self._closings, return_exceptions=True)

    def _redacted(self, terminal: Terminal, request: HarnessRequest) -> Terminal:
        terminal = redacted(terminal, request, self._redactor)
        if isinstance(terminal, Finished):
            return terminal
        return replace(terminal, detail=terminal.detail.replace(str(self._workspace.root), ""))

    def _new_sidecar(self, scratch: Path) -> Sidecar:
        return Sidecar(
            self._launcher,
            sidecar_command(self._settings, self._workspace, script=self._settings.sidecar, scratch=scratch),
            scratch=scratch,
            patience=self._settings.patience,
            redact=self._redactor.text,
        )


def sidecar_command(settings: PiSettings, workspace: Workspace, *, script: Path, scratch: Path) -> Command:
    """How to start a sidecar's process in a workspace, with `scratch` for its temporary files."""
    own = {
        "PATH": settings.path,
        "LANG": settings.lang,
        "HOME": str(workspace.home),
        "TMPDIR": str(scratch),
        MARK: workspace.owner.mark,
    }
    return Command(
        argv=(str(settings.node), *settings.node_arguments, str(script)),
        environment={**settings.environment, **own},
        directory=workspace.home,
        max_line_bytes=MAX_LINE_BYTES,
    )
