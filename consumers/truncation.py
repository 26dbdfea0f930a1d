"""Events cut to a size that the delta topic takes. The result carries what is cut here."""

import hashlib
import json
from typing import Final, TypeVar

from pydantic import JsonValue

from agentstream.schemas.events import (
    AnyEvent,
    Event,
    MessageEnded,
    PartEnded,
    RunEnded,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
)
from agentstream.schemas.messages import Part, Usage

AnEvent = TypeVar("AnEvent", bound=Event)
MAX_CONTENT_BYTES: Final = 16_384
"""Of a tool's arguments and output as UTF-8. As JSON it may take six times that (control characters)."""
MAX_VALUE_BYTES: Final = 65_536
"""Of a complete message or part, as JSON."""
MAX_DELTA_CHARS: Final = 8_192
"""Of one delta: at most 48 KiB as JSON. A longer one becomes several."""
MAX_EVENT_BYTES: Final = 6 * MAX_CONTENT_BYTES + 4_096
"""No event, once cut, is larger as JSON."""
MAX_NAME_CHARS: Final = 256
"""Of ids and names, which come from a model and may be anything."""
SMALL_BYTES: Final = 300
"""About what an event takes that holds no text."""
_FRAME: Final = 160
"""Characters of names and numbers around the texts of a value, at most."""

_End = PartEnded | MessageEnded | TurnEnded | RunEnded
_Tool = ToolStarted | ToolProgressed | ToolEnded
_Values = tuple[tuple[str, ...], tuple[Part, ...], tuple[Usage, ...]]


def texts_of_small(event: AnyEvent) -> tuple[tuple[str, ...], int] | None:
    """All texts of an event that need not be cut, and about how many bytes it takes. None of one that `cut` must see.

    Nearly all are such. To write each out as JSON, to search it for secrets and for its size, took 2 to 4 µs an event.
    """
    values = _values_in(event)
    if values is None:
        return None
    texts, parts, usages = values
    if texts and len(texts[0]) > MAX_NAME_CHARS:
        return None
    size = _FRAME if parts or usages else SMALL_BYTES
    for part in parts:
        match part.type:
            case "text" | "reasoning":
                texts += (part.content,)
                size += _FRAME + len(part.content)
            case _:
                return None
    for usage in usages:
        texts += (usage.provider, usage.model)
        size += 2 * _FRAME + len(usage.provider) + len(usage.model)
    # No character takes more than six bytes as JSON.
    return (texts, size) if 6 * size <= MAX_VALUE_BYTES else None


def _values_in(event: AnyEvent) -> _Values | None:
    """Its names, of which only the first may be long, its parts and usages; None if there is more in it."""
    found: _Values | None = None
    match event.type:  # an `isinstance` that says no takes 65 ns
        case "turn.started" | "run.alive" | "run.queued":
            found = (), (), ()
        case "run.started":
            found = (event.harness, event.model or ""), (), ()  # its ids stay as the caller chose them
        case "message.started" | "part.started":
            found = (event.message_id,), (), ()
        case "part.ended" if event.part is not None:
            found = (event.message_id,), (event.part,), ()
        case "message.ended" if event.message is not None and event.message.name is None:
            found = (event.message_id,), event.message.parts, () if event.usage is None else (event.usage,)
        case "turn.ended":
            found = (), (), () if event.usage is None else (event.usage,)
        case "run.ended" if event.error is None:
            found = (), (), event.usage
        case _:
            pass
    return found


def cut(event: AnyEvent) -> tuple[AnyEvent, int]:
    """The event, with values that are too large cut or left out and marked, and about how many bytes it takes then.

    Not for deltas: `pieces` of their text are small enough.
    """
    if event.type in ("message.started", "part.started"):
        return with_short(event, "message_id"), SMALL_BYTES
    if event.type in ("part.ended", "message.ended"):
        return _cut_end(with_short(event, "message_id"))
    if event.type in ("turn.ended", "run.ended"):
        return _cut_end(event)
    if event.type in ("tool.started", "tool.progress", "tool.ended"):
        return _cut_tool(event)
    return event, SMALL_BYTES


def pieces(text: str) -> list[str]:
    """A delta's text as several that are small enough; joined they are the same text."""
    if len(text) <= MAX_DELTA_CHARS:
        return [text] if text else []
    return [text[start : start + MAX_DELTA_CHARS] for start in range(0, len(text), MAX_DELTA_CHARS)]


def with_short(event: AnEvent, name: str) -> AnEvent:
    """The event with an id or a name of at most `MAX_NAME_CHARS`."""
    text: str = getattr(event, name)
    if len(text) <= MAX_NAME_CHARS:
        return event
    # Its hash keeps it apart from others that begin alike: ids join the events of one thing.
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return event.with_values(**{name: f"{text[: MAX_NAME_CHARS - len(digest) - 1]}-{digest}"})


def _cut_end(event: _End) -> tuple[AnyEvent, int]:
    size = len(event.to_bytes())
    if size > MAX_VALUE_BYTES:
        event = _without_large(event)
        size = len(event.to_bytes())
    return event, size


def _without_large(event: _End) -> _End:
    if event.type == "message.ended" and event.message and len(event.message.to_bytes()) > MAX_VALUE_BYTES:
        event = event.with_values(message=None, truncated=True)
    if event.type == "part.ended":
        if event.part and len(event.part.to_bytes()) > MAX_VALUE_BYTES:
            event = event.with_values(part=None, truncated=True)
    elif len(event.to_bytes()) > MAX_EVENT_BYTES:
        # Only a list of usages, or names in it, without end can be the reason here. The result has it.
        event = event.with_values(usage=() if event.type == "run.ended" else None)
    return event


def _cut_tool(event: _Tool) -> tuple[AnyEvent, int]:
    event = with_short(with_short(event, "tool_call_id"), "tool_name")
    size = len(event.to_bytes())
    # As `_json_size` and `_cut_text` count, it is at most 2.2 times as much: `-Infinity, ` is `null,` on the wire.
    if 3 * size > MAX_CONTENT_BYTES:
        event = _with_less(event)
        size = len(event.to_bytes())
    return event, size


def _with_less(event: _Tool) -> _Tool:
    match event:
        case ToolStarted() if _json_size(event.arguments) > MAX_CONTENT_BYTES:
            return event.with_values(arguments=None, truncated=True)
        case ToolProgressed():
            # The newest part of the output is at its end.
            content, truncated = _cut_text(event.content, keep_end=True)
        case ToolEnded(content=str(text)):
            content, truncated = _cut_text(text)
        case ToolEnded() if _json_size(event.content) > MAX_CONTENT_BYTES:
            content, truncated = _cut_text(json.dumps(event.content, ensure_ascii=False))
        case _:
            return event
    return event.with_values(content=content, truncated=True) if truncated else event


def _cut_text(text: str, *, keep_end: bool = False) -> tuple[str, bool]:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MAX_CONTENT_BYTES:
        return text, False
    kept = raw[-MAX_CONTENT_BYTES:] if keep_end else raw[:MAX_CONTENT_BYTES]
    return kept.decode("utf-8", "ignore"), True


def _json_size(value: JsonValue) -> int:
    if isinstance(value, bool | int | float | None):
        return 0
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
