"""Keeps one sidecar running: starts it, watches it, starts it again.

async with Sidecar(launcher, command) as sidecar:
    link = await sidecar.link()
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agentstream.consumers.harness.launcher import Command, Launcher
from agentstream.consumers.harness.sidecar_link import SidecarLink, SidecarUnavailable
from agentstream.consumers.harness.sweep import empty

logger = logging.getLogger(__name__)
_LOG_LINE = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long the sidecar may take, in seconds."""

    start: float = 20.0
    """From its start to `ready`; 0.7 on an idle machine."""
    ping_interval: float = 3.0
    """Between two pings."""
    ping: float = 5.0
    """For an answer, or any line at all: twenty answers of 2 MiB at once keep it busy for 1.6."""
    restart: float = 0.2
    """Before the second start in a row that failed; doubled up to `restart_most`."""
    restart_most: float = 10.0
    """Between two starts at most."""


class Sidecar:
    """A sidecar that is there when it is needed. Opening it starts the first process and raises SidecarUnavailable.

    Closing it ends the process. `redact` is put between the sidecar's log and ours. `scratch` is the directory for
    temporary files of its processes, emptied behind each: a killed one's would stay as long as the worker.
    """

    def __init__(
        self,
        launcher: Launcher,
        command: Command,
        *,
        scratch: Path,
        patience: Patience | None = None,
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._launcher = launcher
        self._command = command
        self._scratch = scratch
        self._patience = patience or Patience()
        self._redact = redact
        self._link: SidecarLink | None = None
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why there is none at the moment; None while there is one."""
        self.starts = 0
        """How many processes were started."""

    async def __aenter__(self) -> Self:
        link = await self._start()
        self._keeper = asyncio.create_task(self._keep(link), name="sidecar-keeper")
        self._keeper.add_done_callback(self._kept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        await asyncio.to_thread(empty, self._scratch)

    @property
    def current(self) -> SidecarLink | None:
        """The running one, or None while there is none."""
        return self._link if self._link is not None and self._link.is_alive else None

    async def link(self) -> SidecarLink:
        """The running one; waits while it is started again. Raises SidecarUnavailable when that takes too long."""
        if (link := self.current) is not None:
            return link
        try:
            async with asyncio.timeout(self._patience.start):
                while (link := self.current) is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SidecarUnavailable(self.problem or "the sidecar does not start") from None
        return link

    async def _start(self) -> SidecarLink:
        self.starts += 1
        link = await SidecarLink.open(self._launcher, self._command, log=self._log, timeout=self._patience.start)
        self._link = link
        self.problem = None
        self._changed.set()
        logger.info("sidecar %d is ready: Pi %s, Node %s", link.pid, link.ready.pi, link.ready.node)
        return link

    async def _keep(self, link: SidecarLink) -> None:
        while True:
            await link.watch(interval=self._patience.ping_interval, patience=self._patience.ping)
            code = await link.ended()
            self.problem = f"the sidecar ended with {code}"
            logger.warning("sidecar %d ended with %d: starting another", link.pid, code)
            await link.close()
            await asyncio.to_thread(empty, self._scratch)
            link = await self._restart()

    async def _restart(self) -> SidecarLink:
        pause = self._patience.restart
        while True:
            try:
                return await self._start()
            except SidecarUnavailable as error:
                self.problem = str(error)
                logger.error("no sidecar: %s", self._redact(self.problem))  # noqa: TRY400  # no trace: it says all
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._patience.restart_most)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        # Only a bug of ours ends the keeper by itself; without it a dead sidecar would stay dead in silence.
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self.problem = "nobody watches the sidecar any more: restart the worker"
            logger.error("the sidecar's keeper failed", exc_info=error)

    def _log(self, line: str) -> None:
        logger.warning("sidecar: %s", self._redact(line)[:_LOG_LINE])
