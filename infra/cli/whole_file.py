"""Files that are written whole or not at all: what stood there stays until the new one is complete."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TextIO


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write; it takes its place when the block ends, and not at all where the block raises.

    Owner and permissions are those that `open` would leave. What is no regular file, or is open in this process
    already (`/dev/stdout` with stdout in a file), is written to as it is. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    before = _of(target)
    if before is not None and (not stat.S_ISREG(before.st_mode) or _is_open_here(before)):
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    if before is not None:
        os.close(os.open(target, os.O_WRONLY))  # a file that may not be written to is not replaced either
    fresh = target.with_name(f".agentstream-{token_hex(8)}.part")
    try:
        with _made(fresh, path) as file:
            if before is not None:
                _belongs_as(file.fileno(), before)
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _made(fresh: Path, path: Path) -> TextIO:
    try:
        return fresh.open("x", encoding="utf-8")
    except OSError as error:
        error.filename = str(path)  # what people know
        raise


def _of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_open_here(wanted: os.stat_result) -> bool:
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the one that lists them is closed by now
            if os.path.samestat(wanted, os.fstat(int(entry.name))):
                return True
    return False


def _belongs_as(descriptor: int, before: os.stat_result) -> None:
    with suppress(PermissionError):  # somebody else's, which we may write to: only root gives files away
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
