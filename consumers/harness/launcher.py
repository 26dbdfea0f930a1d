"""Where a harness process runs: a seam of its own, so that a sandbox or another machine can come later.

Launcher.start(Command) -> HarnessProcess: lines in and out, signal, wait
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A program to run. Secrets belong on its stdin: argv and environment can be read by others."""

    argv: tuple[str, ...]
    """Program and arguments."""
    environment: Mapping[str, str] = field(repr=False)
    """Its whole environment: nothing is inherited."""
    directory: Path
    """Where it starts."""
    max_line_bytes: int
    """The longest line it may write."""


class HarnessProcess(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id, for logs."""
        ...

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Closing it asks the process to end."""
        ...

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Its lines; a longer one than agreed raises ValueError in `readline`."""
        ...

    @property
    def stderr(self) -> asyncio.StreamReader:
        """Its log. Must be read, or the process blocks."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process and its group; nothing happens if they are gone."""
        ...

    async def wait(self) -> int:
        """Its return code once it has ended; −n for signal n."""
        ...


class Launcher(Protocol):
    """Starts processes."""

    async def start(self, command: Command) -> HarnessProcess:
        """Start it in a process group of its own. Raises OSError if it cannot be started."""
        ...


class LocalProcess:
    """A child of this process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("all three pipes are needed")
        self._process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self.stderr = process.stderr

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it to the whole group."""
        # A reaped child's pid may belong to someone else by now, and killpg would hit that group.
        if self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    async def wait(self) -> int:
        """Its return code."""
        return await self._process.wait()


class LocalLauncher:
    """Starts processes on this machine, each in a session of its own: a Ctrl-C at the worker does not reach them."""

    async def start(self, command: Command) -> LocalProcess:
        """Start it. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(command.environment),
            cwd=command.directory,
            start_new_session=True,
            limit=command.max_line_bytes + 1,
        )
        return LocalProcess(process)


def bubblewrap_prefix(workdir: Path, *, program: Path, as_root: bool) -> tuple[str, ...]:
    """What to put before a shell so that bubblewrap keeps it: the system read-only, only `workdir` writable.

    The shell's processes end with it, those that called `setsid` too. Costs 6 ms a call. Linux only; raises ValueError
    elsewhere. `as_root`: this process is root, and bubblewrap must give that up itself.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError("bubblewrap is for Linux")
    give_up_root = ("--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL") if as_root else ()
    return (
        str(program),
        *("--unshare-pid", "--die-with-parent"),
        *give_up_root,
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),  # noqa: S108  # inside it
        *("--bind", str(workdir), str(workdir), "--chdir", str(workdir), "--"),
    )
