"""Lines of a file, whatever it is, in an event loop."""

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

STDIN: Final = 0
_CHUNK: Final = 65_536
Value = TypeVar("Value")


def count_lines(path: Path) -> int | None:
    """How many lines that are not empty a file has; None for a pipe, which can be read only once. Raises OSError."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return None
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


async def lines_of(path: Path | None) -> AsyncIterator[bytes]:
    """The lines of a file as they are asked for, or as they come: a pipe's, or with None those of stdin.

    Raises OSError.
    """
    if path is None:
        descriptor = STDIN
    elif stat.S_ISREG(path.stat().st_mode):
        with path.open("rb") as file:  # a disk answers at once
            for line in file:
                yield line
        return
    else:
        descriptor = await _apart(partial(os.open, path, os.O_RDONLY))
    rest = b""
    while chunk := await _apart(partial(os.read, descriptor, _CHUNK)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _apart(work: Callable[[], Value]) -> Value:
    """Do this in a thread of its own, which nobody waits for at the end.

    A loop cannot wait for every kind of file, and whoever presses Ctrl-C would else have to press Enter as well. The
    descriptor itself is read: a thread that is inside `sys.stdin` when Python ends crashes it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Value] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(done.set_result, work())
        except OSError as error:
            tell = partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else tell())

    threading.Thread(target=run, name="read lines", daemon=True).start()
    return await done
