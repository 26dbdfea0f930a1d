"""What of a request no worker would take, or pay heed to: found before it is sent, with its place.

Workers pass over names that they do not know, for the sake of newer callers: a typo had no effect and no word.
"""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from agentstream.schemas.bounds import Bounds
from agentstream.schemas.messages import (
    BlobPart,
    FilePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from agentstream.schemas.parsing import at, parse_object
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest, Limits, Retry

NO_CHARACTER: Final = "a lone surrogate such as \\ud800 is no character"
_NESTED: Final[Mapping[str, type[BaseModel]]] = {"limits": Limits, "retry": Retry, "harness": HarnessChoice}
_PARTS: Final[Mapping[object, type[BaseModel]]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "tool_call": ToolCallPart,
    "tool_call_response": ToolCallResponsePart,
    "blob": BlobPart,
    "file": FilePart,
    "uri": UriPart,
}
_CALLERS: Final = ("user", "system")
"""Whose messages the caller has written. Others are an agent's: a newer worker's may have fields unknown here."""
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
_BOUNDS: Final = Bounds(max_bytes=2**31)
"""A worker's own; how many bytes a request may have is said where it is sent."""


def unknown_parameter(parameters: Mapping[str, object]) -> str | None:
    """What to say of the first parameter that does not exist; None: all do."""
    nested = [f"{outer}.{inner}" for outer, model in _NESTED.items() for inner in model.model_fields]
    for name, value in parameters.items():
        if unknown := unknown_name(str(name), AgentParameters.model_fields, also=nested):
            return unknown
        if name in _NESTED and isinstance(value, Mapping):
            for inner in value:
                if unknown := unknown_name(str(inner), _NESTED[name].model_fields, f"{name}."):
                    return unknown
    return None


def unknown_name(
    name: str, known: Collection[str], prefix: str = "", kind: str = "parameter", *, also: Iterable[str] = ()
) -> str | None:
    """What to say of a name that is none of these; None if it is one. `also`: what else may have been meant."""
    if name in known:
        return None
    near = difflib.get_close_matches(name, [*known, *also], n=1)
    advice = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{prefix}{name}: there is no such {kind}; {advice}"


def unknown_in_messages(messages: Sequence[object]) -> str | None:
    """What to say of the first field that does not exist in what the caller himself says, given as dictionaries."""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role", "user") not in _CALLERS:
            continue
        place = f"messages.{number}."
        if unknown := _unknown_field(message, ("role", "content", *Message.model_fields), place):
            return unknown
        parts = message.get("parts")
        for index, part in enumerate(parts if isinstance(parts, list | tuple) else ()):
            model = _PARTS.get(part.get("type")) if isinstance(part, Mapping) else None
            if model and (unknown := _unknown_field(part, model.model_fields, f"{place}parts.{index}.")):
                return unknown
    return None


def _unknown_field(given: Mapping[object, object], known: Iterable[str], place: str) -> str | None:
    names = dict.fromkeys(known)
    return next((why for name in given if (why := unknown_name(str(name), names, place, "field"))), None)


def unfit(request: InvokeRequest) -> str | None:
    """What every worker would refuse it for, and where that is; None: nothing.

    A lone surrogate (half an emoji, or bytes of a command line that are no text) would be sent as U+FFFD: the agent was
    asked something else, and nobody was told.
    """
    try:
        raw = request.model_dump_json(exclude_none=True)
    except PydanticSerializationError:
        raw = _REPLACED
    if _REPLACED in raw:  # what pydantic writes for one in an object's name; where it is one, json.dumps escapes it
        raw = json.dumps(request.model_dump(exclude_none=True), default=str)
    problem = parse_object(raw.encode(), _BOUNDS).problem
    return None if problem is None else problem.detail or problem.title


def first_flaw(error: ValidationError) -> str:
    """The first thing wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    sentence = NO_CHARACTER if first["type"] == "string_unicode" else first["msg"].removeprefix("Value error, ")
    return at((step for step in first["loc"] if step != "[key]"), sentence)
