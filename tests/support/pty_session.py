"""A command on a real terminal: what it writes there, and keys that are pressed."""

import asyncio
import os
import pty
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.waiting import patience

CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
UP = "\x1b[A"


class PtySession:
    """A command that has a terminal to itself. Made by `on_a_terminal`."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self.shown = ""
        """All that was written so far."""
        self._terminal = terminal
        self._came = asyncio.Event()
        self._seen = 0
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def press(self, keys: str) -> None:
        """Press keys, as a person does."""
        os.write(self._terminal, keys.encode())

    async def until(self, words: str) -> str:
        """Wait until these words are written, behind those waited for before; returns what came with them."""
        async with patience():
            while (place := self.shown.find(words, self._seen)) < 0:
                self._came.clear()
                await self._came.wait()
        came = self.shown[self._seen : place + len(words)]
        self._seen = place + len(words)
        return came

    async def interrupted(self, words: str) -> str:
        """Press Ctrl-C at a prompt until these words are written; returns what came with them.

        Again each second, as a person does: of one that comes while Python's readline works off another key it takes
        note, and looks at it with the next key only.
        """
        waiting = asyncio.create_task(self.until(words))
        while not waiting.done():
            self.press(CTRL_C)
            await asyncio.wait({waiting}, timeout=1)
        return await waiting

    async def ended(self) -> int:
        """Wait until it has ended; returns its exit code."""
        async with patience():
            return await self.process.wait()

    def close(self) -> None:
        """Let go of the terminal."""
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    def _read(self) -> None:
        try:
            chunk = os.read(self._terminal, 65_536)
        except OSError:  # what Linux says when nobody holds the other end
            asyncio.get_running_loop().remove_reader(self._terminal)
            return
        self.shown += chunk.decode(errors="replace")
        self._came.set()


@asynccontextmanager
async def on_a_terminal(
    command: Sequence[str], home: Path, environment: Mapping[str, str]
) -> AsyncIterator[PtySession]:
    """Start it; at the end it is killed, if it still lives."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=home,
        env={**environment, "TERM": "xterm", "COLUMNS": "200", "INPUTRC": os.devnull},
        preexec_fn=lambda: os.login_tty(theirs),  # its own session, or Ctrl-C would not reach it
    )
    os.close(theirs)
    session = PtySession(process, ours)
    try:
        yield session
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        session.close()
