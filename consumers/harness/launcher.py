"""Where a harness process runs: a seam of its own, so that a sandbox or another machine can come later.

Launcher.start(Command) -> HarnessProcess: lines in and out, signal, wait
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol


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

    def __init__(self, process: subprocess.Popen[bytes], pipes: "_Pipes") -> None:
        self._process = process
        self.stdin = pipes.stdin
        self.stdout = pipes.stdout
        self.stderr = pipes.stderr
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        # As asyncio does it: a thread each. Nothing but a thread can wait for one child on every system.
        threading.Thread(target=self._wait, name=f"wait-{process.pid}", daemon=True).start()

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
        await self._ended.wait()
        return self._process.returncode

    def _wait(self) -> None:
        self._process.wait()
        # A loop that is closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_end)

    def _on_end(self) -> None:
        self.stdin.close()
        self._ended.set()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pipes:
    """This end of a child's three pipes."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader


class LocalLauncher:
    """Starts processes on this machine, each in a session of its own: a Ctrl-C at the worker does not reach them."""

    async def start(self, command: Command) -> LocalProcess:
        """Start it. Raises OSError.

        Not by the event loop: uvloop leaves its child's own ends open beside 0, 1 and 2, and they are inherited on.
        The shells of Pi's tools held the sidecar's output: one that outlived a killed sidecar hid its end for as long
        as it lived, and what it wrote there would have been believed.
        """
        process = subprocess.Popen(  # noqa: ASYNC220  # asyncio starts its own in just this way
            command.argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(command.environment),
            cwd=command.directory,
            start_new_session=True,
        )
        try:
            return LocalProcess(process, await _connected(process, limit=command.max_line_bytes + 1))
        except BaseException:
            process.kill()
            process.wait()
            raise


class _Reading(asyncio.StreamReaderProtocol):
    def eof_received(self) -> bool:
        """No half of a pipe is left to write to: uvloop would keep it open for that."""
        super().eof_received()
        return False


async def _connected(process: subprocess.Popen[bytes], *, limit: int) -> _Pipes:
    return _Pipes(
        stdin=await _writer(process.stdin),
        stdout=await _reader(process.stdout, limit),
        stderr=await _reader(process.stderr, limit),
    )


async def _reader(pipe: IO[bytes] | None, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Reading(reader), pipe)
    return reader


async def _writer(pipe: IO[bytes] | None) -> asyncio.StreamWriter:
    # A protocol that knows how to wait until there is room; nothing is ever read through it.
    loop, protocol = asyncio.get_running_loop(), asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


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
