"""Lines of a file or of stdin, in an event loop."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

STDIN: Final = 0
_CHUNK: Final = 65_536


async def lines_of(path: Path) -> AsyncIterator[bytes]:
    """The lines of a file on disk, which is read as they are asked for. Raises OSError."""
    with path.open("rb") as file:  # a disk answers at once
        for line in file:
            yield line


async def lines_of_stdin() -> AsyncIterator[bytes]:
    """The lines of stdin as they come, whatever it is: a pipe, a file, a terminal."""
    rest = b""
    async for chunk in _chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _chunks() -> AsyncIterator[bytes]:
    """What stdin holds, one chunk at a time: the next one is read when this one was used.

    In a thread of its own, since a loop cannot wait for a file, and one that nobody waits for: whoever presses Ctrl-C
    would else have to press Enter as well. The descriptor itself is read: a thread inside `sys.stdin` crashes Python
    when it ends.
    """
    loop = asyncio.get_running_loop()
    while True:
        got: asyncio.Future[bytes] = loop.create_future()
        threading.Thread(target=_read, args=(loop, got), name="read stdin", daemon=True).start()
        if not (chunk := await got):
            return
        yield chunk


def _read(loop: asyncio.AbstractEventLoop, got: "asyncio.Future[bytes]") -> None:
    error: OSError | None = None
    chunk = b""
    try:
        chunk = os.read(STDIN, _CHUNK)
    except OSError as found:
        error = found

    def tell() -> None:
        if got.cancelled():
            return
        if error is None:
            got.set_result(chunk)
        else:
            got.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(tell)
