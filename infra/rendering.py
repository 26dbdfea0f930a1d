"""A run as people watch it: words as they come, tools as lines, then how it ended."""

import json
from collections.abc import Callable

from agentstream.consumers.client import Voided
from agentstream.infra.printable import one_line, printable
from agentstream.schemas.events import PartDelta, PartStarted, ReadEvent, RunQueued, RunRetrying, ToolEnded, ToolStarted
from agentstream.schemas.results import InvokeResult

_MAX_LINE = 160

Write = Callable[[str], None]


class LiveRun:
    """Feeds on a run's events. `piece` gets words of the answer, `line` everything else, one line each."""

    def __init__(self, *, piece: Write, line: Write) -> None:
        self._piece = piece
        self._line = line
        self._in_text = False
        self._retrying = False

    def show(self, event: ReadEvent | Voided) -> None:
        """One event."""
        match event:
            case PartDelta(part_type="text"):
                self._in_text = True
                self._piece(printable(event.delta))
            case PartStarted(part_type="text") if self._in_text:
                self.end_text()
            case RunQueued():
                before = f"{event.ahead} of its session before it" if event.ahead else "for a free slot"
                self._say(f"… it waits, {before}")
            case ToolStarted():
                self._say(f"→ {event.tool_name} {shortened(event.arguments)}")
            case ToolEnded():
                sign = "✗" if event.is_error else "←"
                self._say(f"{sign} {event.tool_name} {shortened(event.content)} ({event.duration_ms} ms)")
            case RunRetrying():
                why = "the worker stops" if event.error is None else f"{event.error.code}: {event.error.title}"
                self._retrying = True
                self._say(f"… {why}; trying again")
            case Voided() if self._retrying:
                self._retrying = False  # said already
            case Voided():
                self._say("… what was shown of this run is void: another attempt counts")

    def end_text(self) -> None:
        """End the line of words, if one is open."""
        if self._in_text:
            self._in_text = False
            self._piece("\n")

    def _say(self, line: str) -> None:
        self.end_text()
        self._line(one_line(line))


def summary(result: InvokeResult) -> str:
    """How it ended, in one line."""
    parts = [result.status, tokens(result)]
    if result.cost is not None:
        parts.append(f"{result.cost.amount} {result.cost.currency}")
    if result.crashes:
        parts.append(f"crashes: {result.crashes}")
    parts += [f"run {result.run_id}", f"session {one_line(result.session_id)}", f"trace {result.trace_id}"]
    return " · ".join(part for part in parts if part)


def problem_line(result: InvokeResult) -> str:
    """Why it did not complete, in one line; what to do stands in docs/errors.md."""
    if result.error is None:
        return result.status
    return f"{result.error.code}: {printable(result.error.detail or result.error.title)}"


def tokens(result: InvokeResult) -> str:
    """Tokens in and out, over all models; empty where unknown."""
    if not result.usage:
        return ""
    read = sum(each.input_tokens for each in result.usage)
    written = sum(each.output_tokens for each in result.usage)
    return f"{read} tokens in, {written} out"


def shortened(value: object) -> str:
    """A JSON value on one short line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = one_line(text)
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}…"
