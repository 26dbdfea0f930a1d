"""Events that need not be cut are searched for secrets by their texts alone: no text may be forgotten there.

A field that is added to an event and not to `texts_of_small` would go out unredacted. So the fields are taken from the
models here.
"""

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agentstream.consumers.truncation import texts_of_small
from agentstream.schemas.events import AnyEvent, Event, MessageEnded, PartDelta, PartEnded
from agentstream.schemas.messages import Message, Part, ReasoningPart, TextPart, Usage

KINDS = [kind for kind in get_args(get_args(AnyEvent)[0]) if kind is not PartDelta]
IDS = {"parent_run_id"}
"""What the caller chose, and finds again as it was."""


def texts_of(model: type[BaseModel]) -> dict[str, Any]:
    """A text of its own for each field of a model that holds any text."""
    fields = model.model_fields.items()
    return {name: f"{model.__name__}.{name}" for name, field in fields if field.annotation in (str, str | None)}


def usage() -> Usage:
    return Usage(input_tokens=1, output_tokens=1, **texts_of(Usage))


def filled(kind: type[Event], part: Part) -> Any:
    """An event with all of its texts, and within it all there can be."""
    message = Message(role="assistant", parts=(part,))
    fields = kind.model_fields
    inner: dict[str, Any] = {"usage": usage(), "part": part, "message": message}
    inside = {name: value for name, value in inner.items() if name in fields}
    if kind.__name__ == "RunEnded":
        inside["usage"] = (usage(),)
    return kind.model_construct(**texts_of(kind), **inside)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("part", [TextPart, ReasoningPart])
def test_all_texts_of_an_event_are_searched(kind: type[Event], part: type[TextPart | ReasoningPart]) -> None:
    found = texts_of_small(filled(kind, part(**texts_of(part))))
    if found is None:
        return  # it is searched as a whole
    models: list[type[BaseModel]] = [kind, *([Usage] if "usage" in kind.model_fields else [])]
    models += [part] if kind in (PartEnded, MessageEnded) else []
    expected = {text for model in models for name, text in texts_of(model).items() if name not in IDS}
    assert set(found[0]) - {""} == expected


def test_a_named_message_and_other_parts_are_searched_as_a_whole() -> None:
    said = Message(role="assistant", parts=(TextPart(content="hi"),), name="somebody")
    assert texts_of_small(MessageEnded(message_id="m", message=said)) is None
    for part in set(get_args(get_args(Part)[0])) - {TextPart, ReasoningPart}:
        assert texts_of_small(filled(PartEnded, part.model_construct())) is None


def test_what_has_no_texts_of_its_own_needs_no_search() -> None:
    assert {
        kind.__name__ for kind in KINDS if not texts_of(kind) and texts_of_small(filled(kind, TextPart(content="x")))
    } == {
        "RunQueued",
        "RunAlive",
        "RunEnded",
        "TurnStarted",
        "TurnEnded",
    }
