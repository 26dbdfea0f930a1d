"""A parsed object to a model: pydantic's verdict as one line that names the place and echoes no value."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agentstream.schemas.base import WireModel
from agentstream.schemas.bounds import Json
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.parsing import at

M = TypeVar("M", bound=WireModel)
_MAX_SENTENCE = 200
_SENTENCES = {
    "missing": "is required",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "tuple_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "union_tag_not_found": "`type` is required",
}


def validated(model: type[M], document: Json) -> M | Problem:
    """The model, or why the object is none. Never raises."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Problem.of(ErrorCode.SCHEMA_INVALID, at(path_in(document, first["loc"]), _sentence(first)))


def path_in(document: object, location: tuple[int | str, ...]) -> list[int | str]:
    """pydantic's location without the names of union members, which stand in no document.

    The last name is kept although it is absent: that is what a missing field looks like.
    """
    path: list[int | str] = []
    node = document
    for depth, name in enumerate(location, start=1):
        found = name in node if isinstance(node, dict) else isinstance(node, list) and isinstance(name, int)
        if found:
            node = node[name]  # type: ignore[index]  # a list's index, an object's name
        if found or depth == len(location):
            path.append(name)
    return path


def _sentence(error: ErrorDetails) -> str:
    """What is wrong. pydantic's own words where they hold no input; of a union's tag they would hold it whole."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_invalid":
        sentence = f"`type` must be one of {context['expected_tags']}"
    elif kind == "too_short":
        sentence = f"must have at least {context['min_length']} item"
    elif kind == "too_long":
        sentence = f"must have at most {context['max_length']} items"
    else:
        sentence = _SENTENCES.get(kind, error["msg"].removeprefix("Value error, ").replace("Input should", "should"))
    return sentence[:_MAX_SENTENCE]
