"""The Pi sidecar as an HTTP server: the Node process that listens, and the cleaning up behind its runs.

async with SidecarServer(settings, Serving(host=…, port=…)) as server:
    code = await server.ended()
"""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from agentstream.consumers.harness.launcher import HarnessProcess, Launcher, LocalLauncher
from agentstream.consumers.harness.pi import PiSettings, sidecar_command
from agentstream.consumers.harness.pi_protocol import Line, ReadyLine
from agentstream.consumers.harness.pi_workspace import Place, Workspace
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable, last_words
from agentstream.consumers.redaction import Redactor

logger = logging.getLogger(__name__)
_LEAVE_S = 6.0
"""Beyond the grace period: to cancel what is left, and to go."""
_LOG_LINE = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """Where to listen, and for whom."""

    host: str
    """The address."""
    port: int
    """The port; 0 is a free one."""
    token: str | None = field(default=None, repr=False)
    """What clients must show; a secret. None: no address but loopback is listened on."""
    grace_s: float = 20.0
    """How long runs may go on after `stop`."""


class _Serve(Line):
    """The first line to the process."""

    type: Literal["serve"] = "serve"
    id: int = 0
    host: str
    port: int
    token: str | None = Field(default=None, repr=False)
    shell_prefix: tuple[str, ...]
    grace_ms: int


class _Listening(ReadyLine):
    """The first line of the process."""

    port: int


class _Open(Line):
    """A place for a run is needed."""

    type: Literal["open"] = "open"
    id: int
    run: str
    tools: bool


class _Close(Line):
    """A run has ended."""

    type: Literal["close"] = "close"
    id: int
    workdir: str
    mark: str
    sweep: bool


class _Answer(Line):
    """The answer to either."""

    id: int
    workdir: str | None = None
    mark: str | None = None
    problem: str | None = None


_QUESTION: TypeAdapter[_Open | _Close] = TypeAdapter(Annotated[_Open | _Close, Field(discriminator="type")])


class SidecarServer:
    """Serves the runs of many workers. Opening it raises SidecarUnavailable if it cannot listen; closing it stops it.

    A process that dies is not replaced here: its owner opens another, and its clients wait for that.
    """

    def __init__(
        self,
        settings: PiSettings,
        serving: Serving,
        *,
        launcher: Launcher | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._settings = settings
        self._serving = serving
        self._launcher = launcher or LocalLauncher()
        self._redactor = redactor or Redactor()
        self._workspace = Workspace(settings.temporary)
        self._places: dict[str, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._workspace)
            except OSError as error:
                where = self._settings.temporary
                raise SidecarUnavailable(f"no directory can be made in {where}: {error.strerror}") from error
            self._process = await self._start()
            stack.push_async_callback(self._leave)
            self._ready = await self._listening()
            self._reader = self._spawn(self._read(), "read")
            _ = self._spawn(self._read_log(), "log")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def pid(self) -> int:
        """The process that listens."""
        return self._process.pid

    @property
    def mark(self) -> str:
        """What the marks of all its processes begin with."""
        return self._workspace.owner.mark

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._ready.port

    @property
    def ready(self) -> ReadyLine:
        """What it is."""
        return self._ready

    async def ended(self) -> int:
        """The process's return code, once it has ended; −n for signal n."""
        await asyncio.shield(self._reader)
        return await self._process.wait()

    async def stop(self) -> None:
        """Take nothing new, let runs go on for the grace period, cancel the others, and end."""
        self._process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._serving.grace_s + _LEAVE_S):
                await self._process.wait()
        except TimeoutError:
            logger.warning("the sidecar did not end in time: killed")
            self._process.signal(signal.SIGKILL)

    async def _start(self) -> HarnessProcess:
        script = self._settings.sidecar.with_name("server.js")
        command = sidecar_command(self._settings, self._workspace, script=script, scratch=self._workspace.temporary)
        try:
            process = await self._launcher.start(command)
        except OSError as error:
            raise SidecarUnavailable(f"{command.argv[0]} cannot be started: {error.strerror}") from error
        serving = self._serving
        process.stdin.write(
            _Serve(
                host=serving.host,
                port=serving.port,
                token=serving.token,
                shell_prefix=self._settings.shell_prefix,
                grace_ms=round(serving.grace_s * 1000),
            ).to_bytes()
        )
        return process

    async def _listening(self) -> _Listening:
        try:
            async with asyncio.timeout(self._settings.patience.start):
                raw = await self._process.stdout.readline()
            return _Listening.model_validate_json(raw)
        except (TimeoutError, ValidationError, ValueError) as error:
            why = "it took too long" if isinstance(error, TimeoutError) else await last_words(self._process)
            raise SidecarUnavailable(f"the sidecar does not listen: {why}") from None

    async def _leave(self) -> None:
        # Killed at once: whoever wants runs to end well has called `stop` before.
        self._process.signal(signal.SIGKILL)
        await self._process.wait()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"sidecar-server-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self) -> None:
        while raw := await self._process.stdout.readline():
            _ = self._spawn(self._answer(_QUESTION.validate_json(raw)), "answer")

    async def _answer(self, question: _Open | _Close) -> None:
        answer = self._open(question) if isinstance(question, _Open) else await self._close(question)
        if not self._process.stdin.is_closing():
            self._process.stdin.write(answer.to_bytes())

    def _open(self, question: _Open) -> _Answer:
        try:
            place = self._workspace.open_place(question.run, own=question.tools)
        except OSError as error:
            return _Answer(id=question.id, problem=f"no working directory: {error.strerror}")
        self._places[place.mark] = place
        return _Answer(id=question.id, workdir=str(place.directory), mark=place.mark)

    async def _close(self, question: _Close) -> _Answer:
        place = self._places.pop(question.mark, None)
        if place is not None:
            await self._workspace.close_place(place, sweep=question.sweep)
        return _Answer(id=question.id)

    async def _read_log(self) -> None:
        while True:
            try:
                raw = await self._process.stderr.readline()
            except ValueError:
                continue
            if not raw:
                return
            logger.warning("sidecar: %s", self._redactor.text(raw.decode("utf-8", "replace").rstrip())[:_LOG_LINE])
