"""A record as `agentstream tail` shows it: a line for people, tab-separated cells for a pipe, JSON for scripts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic import JsonValue

from agentstream.infra.cli.dead_letters import whole
from agentstream.infra.cli.screen import styled
from agentstream.infra.cli.tail_feed import Seen
from agentstream.infra.printable import one_line
from agentstream.infra.rendering import problem_line, shortened, tokens
from agentstream.schemas.codec import Rejection
from agentstream.schemas.dead_letters import DeadLetter
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import (
    PartDelta,
    ReadEvent,
    RunEnded,
    RunQueued,
    RunRetrying,
    RunStarted,
    StreamEvents,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
)
from agentstream.schemas.headers import last_wins
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult

_STATUS_STYLES: Final[Mapping[str, str]] = {"completed": "green", "failed": "red", "cancelled": "yellow"}


def instant(timestamp_ms: int) -> str:
    """RFC 3339 with milliseconds, UTC; the number itself where it is no date."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)


def clock(timestamp_ms: int) -> str:
    """The time for people: local, and with its date unless it is of today."""
    try:
        there = datetime.fromtimestamp(timestamp_ms / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return f"{there:%H:%M:%S}" if there.date() == datetime.now().astimezone().date() else f"{there:%Y-%m-%d %H:%M:%S}"


def name(text: str | None) -> str:
    """A run's or a session's name on one line: callers choose it, and it must not drive the terminal."""
    return one_line(text or "")


def as_json(seen: Seen) -> JsonValue:
    """Everything, under the same names for every topic; what it says under a name of its own."""
    record, said = seen.record, _said(seen.value)
    shown: dict[str, JsonValue] = {
        **place(record),
        "run_id": seen.run_id,
        "session_id": seen.session_id,
        **said,
    }
    if isinstance(seen.value, StreamEvents):
        shown |= {"voided": seen.voided, "gap": seen.gap}
    return shown


def place(record: Record) -> dict[str, JsonValue]:
    """Where and when a record lies, its key, and its headers, of which the last counts."""
    return {
        "topic": record.position.topic,
        "partition": record.position.partition,
        "offset": record.position.offset,
        "timestamp": instant(record.timestamp_ms),
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in last_wins(record.headers).items()},
    }


def _said(value: object) -> dict[str, JsonValue]:
    match value:
        case InvokeResult():
            return {"result": value.model_dump(mode="json", exclude_none=True)}
        case StreamEvents():
            ours = value.model_dump(mode="json", exclude_none=True, exclude={"run_id", "session_id"})
            return {"delta": ours}
        case InvokeRequest():
            return {"request": value.model_dump(mode="json", exclude_none=True)}
        case DeadLetter():
            return {"dead_letter": whole(value)}
        case Rejection():
            return {"problem": value.problem.model_dump(mode="json", exclude_none=True)}
        case Problem():
            return {"problem": value.model_dump(mode="json", exclude_none=True)}
        case _:
            raise TypeError(f"a {type(value).__name__} is on no topic")


def cells(seen: Seen) -> Iterator[Sequence[str]]:
    """The lines of a record as cells: time, partition/offset, what, run, session, text. Deltas have one per event."""
    where = seen.record.position
    first = (instant(seen.record.timestamp_ms), f"{where.partition}/{where.offset}")
    run, session = name(seen.run_id), name(seen.session_id)
    if isinstance(seen.value, StreamEvents):
        attempt = f"{seen.value.claim}/{seen.value.attempt}"
        if seen.voided:
            yield (*first, "voided", run, session, f"what was shown of this run is void: attempt {attempt} counts")
        if seen.gap:
            yield (*first, "gap", run, session, "events are missing here")
        for event in seen.value.events:
            yield (*first, event.type, run, session, event_text(event))
        return
    what, text = _summary(seen.value)
    yield (*first, what, run, session, text)


def line(seen: Seen) -> str:
    """A record other than of deltas, for a terminal."""
    what, text = _summary(seen.value)
    session = styled(name(seen.session_id) or "–", "dim")
    shown = styled(what, _STATUS_STYLES.get(what, "cyan" if what == "request" else "red"))
    return f"{styled(clock(seen.record.timestamp_ms), 'dim')} {shown} {name(seen.run_id) or '–'} {session} {text}"


def _summary(value: object) -> tuple[str, str]:
    match value:
        case InvokeResult():
            told = shortened(value.text) if value.status == "completed" else problem_line(value)
            return value.status, " · ".join(part for part in (tokens(value), told) if part)
        case InvokeRequest():
            last = value.messages[-1]
            return "request", shortened(last.text) or f"[a message of {last.role} without text]"
        case DeadLetter():
            return one_line(value.code), shortened(value.message)
        case Rejection():
            return str(value.problem.code), shortened(value.problem.detail or value.problem.title)
        case Problem():
            return "unreadable", shortened(value.detail or value.title)
        case _:
            raise TypeError(f"a {type(value).__name__} has no line")


def event_text(event: ReadEvent) -> str:
    """What an event says, on one short line; empty where its type says it all."""
    for kind, text in _TEXTS:
        if isinstance(event, kind):
            return one_line(text(event))
    return ""


def _ended(event: RunEnded) -> str:
    return event.status if event.error is None else f"{event.status}: {event.error.code}"


def _retrying(event: RunRetrying) -> str:
    return event.reason if event.error is None else f"{event.error.code}, in {event.delay_ms} ms"


_TEXTS: Final[Sequence[tuple[type, Callable[..., str]]]] = (
    (PartDelta, lambda event: shortened(event.delta)),
    (RunStarted, lambda event: " ".join(part for part in (event.harness, event.model) if part)),
    (RunQueued, lambda event: f"{event.ahead} of its session before it"),
    (RunRetrying, _retrying),
    (RunEnded, _ended),
    (ToolStarted, lambda event: f"{event.tool_name} {shortened(event.arguments)}"),
    (ToolProgressed, lambda event: f"{event.tool_name} {shortened(event.content)}"),
    (ToolEnded, lambda event: f"{event.tool_name} {shortened(event.content)} ({event.duration_ms} ms)"),
)
