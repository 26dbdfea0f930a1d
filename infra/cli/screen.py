"""Where a command writes: results on stdout, what happens on stderr; with colours on a terminal, plain lines else."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from pydantic import JsonValue

from agentstream.infra.cli.exits import ReaderGone
from agentstream.infra.printable import one_line, printable

_STYLES = {"dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1"}


class Screen:
    """Plain writing that stays quick: `invoke` streams words with it."""

    def __init__(self, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._status = False

    @property
    def for_people(self) -> bool:
        """Whether stdout is a terminal."""
        return _shows_colours(self._out)

    @property
    def notes_for_people(self) -> bool:
        """Whether stderr is a terminal."""
        return _shows_colours(self._err)

    def status(self, line: str) -> None:
        """A line that the next one replaces, on a terminal; else a note. An empty one takes it away."""
        if not self.notes_for_people:
            if line:
                self.note(line)
            return
        width = shutil.get_terminal_size().columns - 1
        self._clear_status()
        self._err.write(styled(line[:width], "dim") if line else "")
        self._err.flush()
        self._status = bool(line)

    def _clear_status(self) -> None:
        if self._status:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._status = False

    def out(self, line: str) -> None:
        """A line of the command's result."""
        self.piece(f"{line}\n")

    def piece(self, text: str) -> None:
        """A piece of the result, at once."""
        self._clear_status()
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error

    def json(self, value: JsonValue, *, pretty: bool = False) -> None:
        """A JSON document as the result."""
        self.out(json.dumps(value, ensure_ascii=False, indent=2 if pretty else None))

    def note(self, line: str, style: str = "dim") -> None:
        """A line about what happens. It may quote what others said."""
        self._clear_status()
        line = printable(line)
        self._err.write(f"{styled(line, style) if _shows_colours(self._err) else line}\n")
        self._err.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; tab-separated lines when piped, so that `cut` and `awk` work."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        if not self.for_people:
            for row in cells:
                self.out("\t".join(row))
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        # Folded, not cut off: half an id is of no use. Text: a session named `[/x]` was taken for markup and ended it.
        table = Table(*(Column(name, overflow="fold") for name in columns), box=SIMPLE_HEAD, pad_edge=False)
        for row in cells:
            table.add_row(*map(Text, row))
        Console(file=self._out).print(table)


def styled(text: str, style: str) -> str:
    """The text in a colour."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _shows_colours(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
