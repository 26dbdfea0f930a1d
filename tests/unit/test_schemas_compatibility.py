"""A change of the models that would break a program written for version 1 is refused."""

from collections.abc import Callable

import pytest
from pydantic import JsonValue

from agentstream.schemas.asyncapi import asyncapi
from agentstream.schemas.json_schema import WIRE_MODELS, Schema, json_schemas, short_name
from tests.golden.compatibility import breaking_changes
from tests.golden.files import at, baseline, list_at, object_at

DIRECTIONS = {short_name(ce_type): direction for ce_type, (_, direction) in WIRE_MODELS.items()}
Change = Callable[[Schema], None]


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_the_models_break_no_program_written_for_version_1(kind: str) -> None:
    assert breaking_changes(baseline(kind), json_schemas()[kind], DIRECTIONS[kind]) == []


def test_no_topic_and_no_header_of_version_1_is_gone() -> None:
    old, new = baseline("interface"), asyncapi()
    now = {name: at(channel, "address") for name, channel in object_at(new, "channels").items()}
    assert object_at(old, "channels").items() <= now.items()
    for name, headers in object_at(old, "headers").items():
        assert set(map(str, list_at(headers))) <= set(
            object_at(new, "components", "messages", name, "headers", "properties")
        )


def _fields(schema: Schema, model: str | None) -> dict[str, JsonValue]:
    return object_at(_model(schema, model), "properties")


def _model(schema: Schema, model: str | None) -> Schema:
    return schema if model is None else object_at(schema, "$defs", model)


def remove(model: str | None, field: str) -> Change:
    def change(schema: Schema) -> None:
        del _fields(schema, model)[field]

    return change


def rename(model: str | None, field: str, to: str) -> Change:
    def change(schema: Schema) -> None:
        _fields(schema, model)[to] = _fields(schema, model).pop(field)

    return change


def retype(model: str | None, field: str, node: Schema) -> Change:
    def change(schema: Schema) -> None:
        _fields(schema, model)[field] = node

    return change


def update(model: str | None, field: str, **keywords: JsonValue) -> Change:
    def change(schema: Schema) -> None:
        object_at(_fields(schema, model), field).update(keywords)

    return change


def require(model: str | None, field: str, *, add: bool = True) -> Change:
    def change(schema: Schema) -> None:
        node = _model(schema, model)
        names = set(map(str, list_at(node.get("required", []))))
        node["required"] = [*(names | {field} if add else names - {field})]

    return change


def drop_code(schema: Schema) -> None:
    list_at(schema, "$defs", "ErrorCode", "enum").remove("no_output")


def drop_event(schema: Schema) -> None:
    known_events(schema).remove({"$ref": "#/$defs/ToolEnded"})


def add_event(schema: Schema) -> None:
    event: Schema = {"type": "object", "properties": {"type": {"type": "string", "const": "weather.changed"}}}
    known_events(schema).append(event)


def known_events(schema: Schema) -> list[JsonValue]:
    return list_at(schema, "properties", "events", "items", "oneOf", 0, "oneOf")


INTEGER_OR_TEXT: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}]}

BREAKING: list[tuple[str, Change, str]] = [
    ("invoke-request", remove(None, "ttl_ms"), ".ttl_ms: was removed"),
    ("invoke-request", rename(None, "session_id", "session"), ".session_id: was removed"),
    ("invoke-request", retype(None, "ttl_ms", {"type": "string"}), ".ttl_ms: integer was removed"),
    ("invoke-request", require(None, "session_id"), ".session_id: is newly required"),
    ("invoke-request", update("Message", "role", enum=["user"]), ".messages[].role: the value tool was removed"),
    ("invoke-request", update(None, "messages", maxItems=10), ".messages: maxItems is narrower"),
    ("invoke-request", update("Message", "role", pattern="^u"), ".messages[].role: the pattern changed"),
    ("invoke-request", remove("Limits", "max_turns"), ".parameters.limits.max_turns: was removed"),
    ("cancel-run", require(None, "reason"), ".reason: is newly required"),
    ("stream-events", drop_event, ".events[]: type=tool.ended was removed"),
    ("stream-events", remove("PartDelta", "delta"), ".events[]<type=part.delta>.delta: was removed"),
    ("stream-events", retype(None, "claim", {"type": "string"}), ".claim: integer was removed"),
    ("stream-events", require(None, "claim", add=False), ".claim: is no longer always there"),
    ("invoke-result", remove(None, "crashes"), ".crashes: was removed"),
    ("invoke-result", require(None, "cost"), ".cost: is newly required"),
    ("invoke-result", drop_code, ".error.code: the value no_output was removed"),
    ("invoke-result", update(None, "ended_at", format="date"), ".ended_at: the format changed"),
    ("invoke-result", retype(None, "claim", INTEGER_OR_TEXT), ".claim: string is new to readers"),
    ("finished-run", update(None, "status", enum=["completed"]), ".status: the value failed was removed"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "sentence"), BREAKING)
def test_a_change_that_breaks_a_program_is_refused(kind: str, change: Change, sentence: str) -> None:
    changed = json_schemas()[kind]
    change(changed)
    assert sentence in breaking_changes(json_schemas()[kind], changed, DIRECTIONS[kind])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("invoke-request", retype(None, "priority", {"type": "integer"})),
        ("invoke-request", retype("Limits", "max_tools", {"type": "integer"})),
        ("invoke-request", update(None, "messages", maxItems=20_000)),
        ("invoke-request", require(None, "messages", add=False)),
        ("invoke-result", retype(None, "warnings", {"type": "array", "items": {"type": "string"}})),
        ("invoke-result", update(None, "status", enum=["completed", "failed", "cancelled", "paused"])),
        ("stream-events", add_event),
    ],
)
def test_an_addition_passes(kind: str, change: Change) -> None:
    changed = json_schemas()[kind]
    change(changed)
    assert changed != json_schemas()[kind]
    assert breaking_changes(json_schemas()[kind], changed, DIRECTIONS[kind]) == []
