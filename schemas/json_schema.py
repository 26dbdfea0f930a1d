"""JSON Schema (draft 2020-12) of what is on the wire, generated from the models.

    json_schemas()  -> {"invoke-request": {...}, ...}      one self-contained document per wire model
    components()    -> {"InvokeRequest": {...}, ...}       all of them together, for AsyncAPI

Requests are described as callers may write them, everything else as workers write it.
"""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import JsonValue
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from agentstream.schemas import defaults
from agentstream.schemas.base import WireModel
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import (
    CANCEL_RUN,
    EVALUATION,
    FINISHED_RUN,
    INVOKE_REQUEST,
    INVOKE_RESULT,
    STREAM_EVENTS,
)
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.results import FinishedRun, InvokeResult

Schema = dict[str, JsonValue]
Direction = Literal["in", "out"]

WIRE_MODELS: Final[Mapping[str, tuple[type[WireModel], Direction]]] = {
    INVOKE_REQUEST: (InvokeRequest, "in"),
    CANCEL_RUN: (CancelRun, "in"),
    STREAM_EVENTS: (StreamEvents, "out"),
    INVOKE_RESULT: (InvokeResult, "out"),
    FINISHED_RUN: (FinishedRun, "out"),
    EVALUATION: (EvaluationResult, "out"),
}
"""By `ce_type`: the model, and whether callers write it (in) or workers do (out)."""

CONSTANT_DEFAULTS: Final[Mapping[str, JsonValue]] = {
    "agents_md": defaults.AGENTS_MD,
    "harness": {"kind": defaults.HARNESS},
    "tools": list(defaults.TOOLS),
    "thinking": defaults.THINKING,
    "stream": defaults.STREAM,
    "limits": dict(defaults.LIMITS),
    "retry": dict(defaults.RETRY),
}
"""What takes effect where neither request nor files say otherwise, by the names of `AgentParameters`."""


class _Plain(GenerateJsonSchema):
    """Without titles made of field names: "Agents Md" says nothing that `agents_md` does not."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def short_name(ce_type: str) -> str:
    """`agentstream.invoke-request.v1` -> `invoke-request`: the names of files and messages."""
    return ce_type.split(".")[1]


def json_schemas(effective: Mapping[str, JsonValue] = CONSTANT_DEFAULTS) -> dict[str, Schema]:
    """One self-contained document per wire model, by short name.

    `effective`: defaults as they would take effect, by the names of `AgentParameters`.
    """
    return {short_name(ce_type): _document(ce_type, effective) for ce_type in WIRE_MODELS}


def components(effective: Mapping[str, JsonValue] = CONSTANT_DEFAULTS) -> dict[str, Schema]:
    """Every model by its name, referring to each other as `#/components/schemas/…`."""
    _, together = models_json_schema(
        [(model, _mode(direction)) for model, direction in WIRE_MODELS.values()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Plain,
    )
    schemas: dict[str, Schema] = together["$defs"]
    _show_defaults(schemas, effective)
    for schema in schemas.values():
        _name_discriminators(schema)
    return schemas


def _document(ce_type: str, effective: Mapping[str, JsonValue]) -> Schema:
    model, direction = WIRE_MODELS[ce_type]
    schema: Schema = model.model_json_schema(mode=_mode(direction), schema_generator=_Plain)
    definitions = schema.get("$defs")
    if direction == "in" and isinstance(definitions, dict):
        _show_defaults(definitions, effective)
    head: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:agentstream:{ce_type.removeprefix('agentstream.')}",
    }
    return head | schema


def _mode(direction: Direction) -> JsonSchemaMode:
    return "validation" if direction == "in" else "serialization"


def _show_defaults(schemas: Mapping[str, JsonValue], effective: Mapping[str, JsonValue]) -> None:
    """Write the defaults into the parameters' schema, and those of limits and waits also beside each of them."""
    inner = (("Limits", effective.get("limits")), ("Retry", effective.get("retry")))
    for name, values in (("AgentParameters", effective), *inner):
        schema = schemas.get(name)
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(values, Mapping) or not isinstance(properties, dict):
            continue
        for field, value in values.items():
            described = properties.get(field)
            if isinstance(described, dict):
                described["default"] = value


def _name_discriminators(node: JsonValue) -> None:
    """AsyncAPI's `discriminator` is the property's name, OpenAPI's (and pydantic's) an object around it."""
    if isinstance(node, dict):
        discriminator = node.get("discriminator")
        if isinstance(discriminator, dict) and "propertyName" in discriminator:
            node["discriminator"] = discriminator["propertyName"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _name_discriminators(child)
