"""Events cut to a size that the delta topic takes. The result carries what is cut here."""

import hashlib
import json
from collections.abc import Iterator
from typing import Final, TypeVar

from pydantic import JsonValue

from agentstream.schemas.base import WireModel
from agentstream.schemas.events import (
    AnyEvent,
    Event,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    RunEnded,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
)
from agentstream.schemas.messages import Message, ReasoningPart, TextPart, Usage

AnEvent = TypeVar("AnEvent", bound=Event)
MAX_CONTENT_BYTES: Final = 16_384
"""Of a tool's arguments and output as UTF-8. As JSON it may take six times that (control characters)."""
MAX_VALUE_BYTES: Final = 65_536
"""Of a complete message or part, as JSON."""
MAX_DELTA_CHARS: Final = 8_192
"""Of one delta: at most 48 KiB as JSON. A longer one becomes several."""
MAX_EVENT_BYTES: Final = 6 * MAX_CONTENT_BYTES + 4_096
"""No event, once cut, is larger as JSON."""
_FRAME: Final = 160
"""Characters of names and numbers around the texts of a value, at most."""
MAX_NAME_CHARS: Final = 256
"""Of ids and names, which come from a model and may be anything."""


def cut(event: AnyEvent) -> AnyEvent:
    """The event, with values that are too large cut or left out, and marked."""
    match event:
        case ToolStarted() | ToolProgressed() | ToolEnded():
            return _cut_tool(event)
        case MessageEnded(message=Message() as message) if _is_over(message, MAX_VALUE_BYTES, _chars_of(message)):
            event = event.model_copy(update={"message": None, "truncated": True})
        case PartEnded(part=WireModel() as part) if _is_over(part, MAX_VALUE_BYTES, _chars_of(part)):
            event = event.model_copy(update={"part": None, "truncated": True})
        case _:
            pass
    if isinstance(event, RunEnded | TurnEnded | MessageEnded) and _is_over(event, MAX_EVENT_BYTES, chars_in(event)):
        # Only a list of usages, or names in it, without end can be the reason here. The result has it.
        event = event.model_copy(update={"usage": () if isinstance(event, RunEnded) else None})
    if isinstance(event, MessageStarted | MessageEnded | PartStarted | PartDelta | PartEnded):
        return _with_short(event, "message_id")
    return event


def pieces(event: PartDelta) -> Iterator[PartDelta]:
    """A delta as several that are small enough; joined they are the same text."""
    for start in range(0, len(event.delta), MAX_DELTA_CHARS):
        piece = event.delta[start : start + MAX_DELTA_CHARS]
        yield event if len(piece) == len(event.delta) else event.model_copy(update={"delta": piece})


def chars_in(event: AnyEvent) -> int | None:
    """Characters in an event, its frame included; None where only writing it out as JSON tells, and that is costly."""
    match event:
        case PartEnded():
            chars = _chars_of(event.part)
        case MessageEnded():
            chars = _sum(_chars_of(event.message), _chars_of(event.usage), len(event.message_id))
        case TurnEnded():
            chars = _chars_of(event.usage)
        case RunEnded(error=None):
            chars = _sum(*map(_chars_of, event.usage))
        case _:
            chars = None
    return _sum(chars, _FRAME)


def _chars_of(value: WireModel | None) -> int | None:
    match value:
        case None:
            return 0
        case TextPart() | ReasoningPart():
            return _FRAME + len(value.content)
        case Message():
            return _sum(_FRAME, len(value.name or ""), *map(_chars_of, value.parts))
        case Usage():
            return 2 * _FRAME + len(value.provider) + len(value.model)
        case _:
            return None


def _sum(*numbers: int | None) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _is_over(value: WireModel, limit: int, chars: int | None) -> bool:
    # Written out only where that decides: doing it for every event was an eighth of a run's processor time.
    return (chars is None or 6 * chars > limit) and len(value.to_bytes()) > limit


def _cut_tool(event: ToolStarted | ToolProgressed | ToolEnded) -> AnyEvent:
    event = _with_short(_with_short(event, "tool_call_id"), "tool_name")
    match event:
        case ToolStarted() if _json_size(event.arguments) > MAX_CONTENT_BYTES:
            return event.model_copy(update={"arguments": None, "truncated": True})
        case ToolProgressed():
            # The newest part of the output is at its end.
            content, truncated = _cut_text(event.content, keep_end=True)
        case ToolEnded(content=str(text)):
            content, truncated = _cut_text(text)
        case ToolEnded() if _json_size(event.content) > MAX_CONTENT_BYTES:
            content, truncated = _cut_text(json.dumps(event.content, ensure_ascii=False))
        case _:
            return event
    return event.model_copy(update={"content": content, "truncated": True}) if truncated else event


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


def _with_short(event: AnEvent, name: str) -> AnEvent:
    text: str = getattr(event, name)
    if len(text) <= MAX_NAME_CHARS:
        return event
    # Its hash keeps it apart from others that begin alike: ids join the events of one thing.
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return event.model_copy(update={name: f"{text[: MAX_NAME_CHARS - len(digest) - 1]}-{digest}"})
