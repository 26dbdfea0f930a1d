"""What is generated from the models is up to date, valid, and says something about everything."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import JsonValue

from agentstream.schemas import defaults
from agentstream.schemas.asyncapi import asyncapi
from agentstream.schemas.base import WireModel
from agentstream.schemas.examples import EXAMPLES
from agentstream.schemas.export import generated, stale
from agentstream.schemas.json_schema import WIRE_MODELS, Schema, components, json_schemas, short_name
from agentstream.schemas.topics import Topics
from tests.golden.files import Sample, asyncapi_schema, at, object_at, samples

SCHEMAS = json_schemas()
SENTENCE = re.compile(r"[A-Za-z`0-9*].*[.…]( .*[.…])?", re.DOTALL)


def test_everything_generated_is_up_to_date() -> None:
    assert stale() == [], "run: python -m agentstream.schemas.export"


def test_a_file_that_is_missing_or_changed_is_noticed(tmp_path: Path) -> None:
    for name, text in generated().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert stale(tmp_path) == []
    (tmp_path / "docs/errors.md").write_text("# Error codes\n", encoding="utf-8")
    shutil.rmtree(tmp_path / "schemas")
    assert stale(tmp_path) == [name for name in generated() if name != "docs/events.md"]


def test_the_command_checks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agentstream.schemas.export", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_json_schema_is_valid_against_the_metaschema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert SCHEMAS[name]["$id"] == f"urn:agentstream:{name}.v1"


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_each_golden_sample_is_valid_against_its_json_schema(sample: Sample) -> None:
    Draft202012Validator(SCHEMAS[sample.kind]).validate(sample.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("invoke-request", {"messages": []}),
        ("invoke-request", {"messages": [{"role": "user"}]}),
        (
            "invoke-request",
            {"messages": [{"role": "user", "content": "a", "parts": [{"type": "text", "content": "a"}]}]},
        ),
        ("invoke-request", {"messages": [{"role": "user", "content": "a"}], "ttl_ms": "5"}),
        ("invoke-request", {"messages": [{"role": "user", "content": "a"}], "id": "../"}),
        ("cancel-run", {}),
        ("finished-run", {"status": "sleeping", "offset": 1, "body_hash": "9f86d081884c7d65"}),
        ("invoke-result", {"status": "completed"}),
        ("stream-events", {"events": []}),
    ],
)
def test_the_json_schemas_refuse_what_is_wrong(kind: str, value: JsonValue) -> None:
    assert not Draft202012Validator(SCHEMAS[kind]).is_valid(value)


def test_the_schema_of_events_takes_unknown_types_and_checks_known_ones() -> None:
    schema = Draft202012Validator(SCHEMAS["stream-events"])
    record = next(sample.value for sample in samples("stream-events.minimal"))
    unknown: JsonValue = [{"type": "weather.changed", "seq": 0, "degrees": 3}]
    broken: JsonValue = [{"type": "part.delta", "seq": 0}]
    assert schema.is_valid({**record, "events": unknown})
    assert not schema.is_valid({**record, "events": broken})


def test_the_asyncapi_document_is_valid_against_asyncapis_own_schema() -> None:
    Draft7Validator(asyncapi_schema()).validate(asyncapi())


def test_asyncapis_own_schema_refuses_what_is_wrong() -> None:
    # Else the test above would prove nothing: this schema is 400 kB of references that must all have resolved.
    cases: list[tuple[tuple[str, ...], JsonValue]] = [
        (("channels", "control", "address"), 5),
        (("operations", "receiveCancelRun", "action"), "listen"),
        (("components", "messages", "InvokeRequest", "headers"), {"type": 7}),
        (("components", "schemas", "InvokeRequest", "type"), "objekt"),
        (("channels", "control", "bindings", "kafka", "partitions"), 0),
    ]
    for path, wrong in cases:
        document: JsonValue = json.loads(json.dumps(asyncapi()))
        object_at(document, *path[:-1])[path[-1]] = wrong
        assert not Draft7Validator(asyncapi_schema()).is_valid(document), path


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)))
    assert len(references) > 30
    for reference in references:
        assert isinstance(at(document, *reference.split("/")), dict)


def test_the_asyncapi_document_follows_prefix_partitions_and_defaults() -> None:
    document = asyncapi(Topics(prefix="team."), effective={"model": "a/b", "limits": {"max_turns": 9}}, partitions=12)
    assert at(document, "channels", "invokeRequests", "address") == "team.invoke-requests"
    assert at(document, "channels", "deadLetters", "bindings", "kafka", "partitions") == 12
    assert at(document, "channels", "control", "bindings", "kafka", "partitions") == 1
    parameters = at(document, "components", "schemas", "AgentParameters", "properties")
    assert at(parameters, "model", "default") == "a/b"
    assert at(document, "components", "schemas", "Limits", "properties", "max_turns", "default") == 9


def test_the_defaults_in_the_schemas_are_those_that_take_effect() -> None:
    definitions = SCHEMAS["invoke-request"]["$defs"]
    assert at(definitions, "AgentParameters", "properties", "stream", "default") == defaults.STREAM
    limits = at(definitions, "Limits", "properties")
    assert isinstance(limits, dict)
    assert {name: at(limits, name, "default") for name in limits} == dict(defaults.LIMITS)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in EXAMPLES for name in EXAMPLES[kind]])
def test_the_examples_are_true(kind: str, name: str) -> None:
    model = next(model for ce_type, (model, _) in WIRE_MODELS.items() if short_name(ce_type) == kind)
    Draft202012Validator(SCHEMAS[kind]).validate(EXAMPLES[kind][name])
    assert isinstance(model.model_validate(EXAMPLES[kind][name]), WireModel)


@pytest.mark.parametrize("model", components().items(), ids=lambda model: model[0])
def test_every_model_and_every_field_is_described_by_a_sentence(model: tuple[str, Schema]) -> None:
    name, schema = model
    if name == "JsonValue":  # pydantic's name for "anything"
        assert schema == {}
        return
    assert SENTENCE.fullmatch(str(schema["description"])), name
    for field, node in object_at(schema, "properties").items() if "properties" in schema else ():
        assert SENTENCE.fullmatch(str(at(node, "description"))), f"{name}.{field}"
