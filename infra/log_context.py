"""The ids of the run that a task works off: fields of every line that this task, or one it starts, logs.

Others bind fields with `structlog.contextvars`, which has a variable for each: for the three ids of a run, bound once
and shown in two lines, that was 2 µs of the 17 that its lines took.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from structlog.contextvars import merge_contextvars
from structlog.types import EventDict, WrappedLogger

_NONE: Final[Mapping[str, object]] = {}
_ids: ContextVar[Mapping[str, object]] = ContextVar("ids of the run", default=_NONE)


def begin_run(ids: Mapping[str, object]) -> None:
    """The current task works off a run with these ids."""
    _ids.set(ids)


def end_run() -> None:
    """It does so no longer."""
    _ids.set(_NONE)


def with_context(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A processor of structlog's: the fields, and behind them the task's, whoever bound them."""
    return merge_contextvars(logger, method, {**event, **_ids.get()})
