"""Where the results of `invoke --file` go: JSON Lines on stdout, or in a file that remembers which runs have ended.

A line is written whole or not at all, also by a process that is killed in the middle of it: a piece of a line at the
file's end is cut off when the file is opened again, and its run's result is fetched once more.
"""

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from agentstream.infra.cli.exits import FAILED, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.schemas.results import InvokeResult


class Output(Protocol):
    """Takes results."""

    finished: dict[str, str]
    """Runs whose results it has, and how each of them ended."""

    def write(self, number: int, result: InvokeResult) -> None:
        """Take the result of the request on this line. Raises OSError."""
        ...


class ScreenOutput:
    """Results on stdout. Nothing is remembered there."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.finished: dict[str, str] = {}

    def write(self, number: int, result: InvokeResult) -> None:
        """A line on stdout."""
        self._screen.out(_line(number, result))


class FileOutput:
    """Results in a file, behind those that stand there. Opened and closed by `with`; for one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO
        self.finished: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._path.exists() and not self._path.is_file():
            # It is read first: the zeros of a device had no end, and the machine no memory left.
            fail(f"--output {self._path}: is no file that keeps what is written; without --output it is stdout", USAGE)
        try:
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            fail(f"--output {self._path}: {error.strerror or error}", USAGE)
        try:
            self._lock()
            self._take_over()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def write(self, number: int, result: InvokeResult) -> None:
        """A line at the end of the file."""
        line = f"{_line(number, result)}\n".encode()
        while line:
            line = line[os.write(self._file.fileno(), line) :]
        self.finished[result.run_id] = result.status

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"--output {self._path}: another process writes to it now; wait for its end", FAILED)

    def _take_over(self) -> None:
        self._file.seek(0)
        whole = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for number, line in enumerate(reader, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                if line.strip():
                    run_id, status = self._ended(number, line)
                    self.finished[run_id] = status
        if self._file.seek(0, os.SEEK_END) > whole:
            self._file.truncate(whole)

    def _ended(self, number: int, line: bytes) -> tuple[str, str]:
        try:
            result = json.loads(line)["result"]
            return str(result["run_id"]), sys.intern(str(result["status"]))
        except (ValueError, KeyError, TypeError):
            return fail(
                f"--output {self._path}: line {number} is no result of `invoke --file`; name another file", USAGE
            )


def _line(number: int, result: InvokeResult) -> str:
    shown = {"line": number, "text": result.text, "result": result.model_dump(mode="json", exclude_none=True)}
    return json.dumps(shown, ensure_ascii=False)
