"""A log handler that says a library's repeated line once, and then now and then how often it came again.

A worker whose broker is gone wrote 640 lines a second: aiokafka tells of every attempt of every client to connect.
"""

import logging
from collections.abc import Collection, Iterator
from copy import copy
from dataclasses import dataclass
from typing import TextIO

EVERY_S = 10.0
_Line = tuple[str, int, str, str]


@dataclass(kw_only=True)
class _Window:
    """A line that was written, and what has come of it since."""

    record: logging.LogRecord
    """The last one."""
    since: float
    """When it was written last, in seconds since 1970."""
    held: int = 0
    """How many were not written since."""


class CalmHandler(logging.StreamHandler[TextIO]):
    """Writes the first of a library's identical lines at once, and every 10 s one more with how many were left out.

    Other lines are never left out, nor are those of loggers that are not in `libraries` or below one of them. What is
    still owed comes with the next line of any kind, or at the end of the process.
    """

    def __init__(self, stream: TextIO, libraries: Collection[str]) -> None:
        super().__init__(stream)
        self._libraries = frozenset(libraries)
        self._windows: dict[_Line, _Window] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if self._windows:
            for summary in self._summaries(record.created):
                super().emit(summary)
        if record.name.partition(".")[0] not in self._libraries:
            super().emit(record)
            return
        window = self._windows.setdefault(_line(record), _Window(record=record, since=record.created))
        if window.record is record:
            super().emit(record)
        else:
            window.record, window.held = record, window.held + 1

    def close(self) -> None:
        for summary in self._summaries(float("inf")):
            super().emit(summary)
        super().close()

    def _summaries(self, now: float) -> Iterator[logging.LogRecord]:
        """Yield what is owed of lines that were written 10 s ago, and forget those that did not come again."""
        old = [(line, window) for line, window in self._windows.items() if now - window.since >= EVERY_S]
        for line, window in old:
            del self._windows[line]
            if window.held:
                summary = copy(window.record)
                seconds = window.record.created - window.since
                summary.msg, summary.args = f"{line[2]} … {window.held:,} more like it in {seconds:.0f} s", None
                summary.exc_info = summary.exc_text = None
                self._windows[line] = _Window(record=summary, since=now)
                yield summary


def _line(record: logging.LogRecord) -> _Line:
    error = repr(record.exc_info[1]) if record.exc_info else ""
    return record.name, record.levelno, record.getMessage(), error
