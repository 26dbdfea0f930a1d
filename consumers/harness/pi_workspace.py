"""The places on disk that Pi's runs get, and what is cleaned up behind them.

async with Workspace(parent) as workspace:
    place = workspace.open_place(attempt_id)   # a throwaway directory and a mark
    await workspace.close_place(place, sweep=True)
"""

import asyncio
import contextlib
import itertools
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agentstream.consumers.harness import sweep as sweeping
from agentstream.consumers.harness.sweep import ROOT_PREFIX, Owner, Target

_UNFIT = re.compile(r"[^A-Za-z0-9-]")
"""In the name of a directory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one attempt works."""

    directory: Path
    """Its throwaway directory, or an empty one."""
    mark: str
    """The mark of its processes."""
    own: bool = True
    """Whether the directory is its alone, and to be removed with all in it."""


class Workspace:
    """A directory of this owner's with one throwaway directory per attempt, and a watcher that outlives us.

    Opening it sweeps what dead owners left; closing it sweeps and removes all of its own. `parent` is where temporary
    directories go: OSError if it takes none.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent.resolve()
        self.owner = Owner.here()
        self.root = self._parent / f"{ROOT_PREFIX}{self.owner.mark}"
        self.home = self.root / "home"
        """An empty home for the sidecar, and for runs without tools: nothing in the user's own reaches a run."""
        self._watcher: asyncio.subprocess.Process | None = None
        self._sweeper = _Sweeper()
        self._numbers = itertools.count(1)

    @property
    def swept(self) -> int:
        """Processes that were left behind and had to be killed, so far."""
        return self._sweeper.killed

    @property
    def temporary(self) -> Path:
        """Where the shared sidecar's temporary files go."""
        return self.root / "tmp"

    @contextlib.contextmanager
    def open_scratch(self) -> Iterator[Path]:
        """A directory for another sidecar's temporary files, which has emptied it at the end. Raises OSError."""
        directory = self.root / f"tmp-{next(self._numbers)}"
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            sweeping.remove_tree(directory)

    async def __aenter__(self) -> Self:
        self._sweeper.killed += await asyncio.to_thread(sweeping.sweep_orphans, self._parent)
        try:
            for directory in (self.root, self.home, self.temporary):
                directory.mkdir(mode=0o700)
        except OSError:
            sweeping.remove_tree(self.root)
            raise
        self._watcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(Path(sweeping.__file__)), self.owner.mark, str(self.root)),
            stdin=asyncio.subprocess.PIPE,
            env={},
            # A Ctrl-C or a kill of the worker's whole group must not take the one who cleans up behind it.
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            await self._watcher.wait()

    def open_place(self, attempt_id: str, *, own: bool) -> Place:
        """A new empty directory and a mark for an attempt. Raises OSError.

        `own`: False for one without tools. It has nothing to write with, and to make and remove a directory took more
        of the worker than all the rest of a trivial run: 0.3 ms.
        """
        token = _UNFIT.sub("_", attempt_id)[:64]
        directory = self.root / token if own else self.home
        if own:
            directory.mkdir(mode=0o700)
        return Place(directory=directory, mark=f"{self.owner.mark}/{token}", own=own)

    async def close_place(self, place: Place, *, sweep: bool) -> None:
        """Kill what the attempt left behind, if it may have started anything, and remove its directory."""
        if not place.own:
            return  # the sidecar works there as well, and a sweep would kill it
        if sweep:
            await self._sweeper.sweep(Target(mark=place.mark, directory=place.directory))
        try:
            os.rmdir(place.directory)  # noqa: PTH106  # most runs leave it empty: no thread for them
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.to_thread(sweeping.remove_tree, place.directory)


class _Sweeper:
    """Looks through all processes once for all who ask at the same time: 200 processes take 10 ms."""

    def __init__(self) -> None:
        self.killed = 0
        self._targets: list[Target] = []
        self._next: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def sweep(self, target: Target) -> None:
        """Return when nothing that the target means is alive. Cancelling the caller does not stop the sweep."""
        self._targets.append(target)
        if self._next is None:
            self._next = asyncio.create_task(self._look(), name="sweep")
        await asyncio.shield(self._next)

    async def _look(self) -> None:
        # While one look is under way the next gathers its targets: it must begin after they were added.
        async with self._one_at_a_time:
            targets, self._targets, self._next = tuple(self._targets), [], None
            self.killed += await asyncio.to_thread(sweeping.sweep, targets)
