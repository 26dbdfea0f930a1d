"""Golden samples keep parsing, and nothing of them is lost."""

import json
import re
from collections.abc import Callable
from datetime import datetime

import pytest
from pydantic import BaseModel, JsonValue

from agentstream.schemas.codec import decode_control, decode_events, decode_finished, decode_request, decode_result
from agentstream.schemas.json_schema import WIRE_MODELS, short_name
from agentstream.schemas.readers import decode_evaluation
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.tables import event_models
from tests.golden.files import Sample, samples

DECODERS: dict[str, Callable[[Record], object]] = {
    "invoke-request": decode_request,
    "cancel-run": decode_control,
    "stream-events": decode_events,
    "invoke-result": decode_result,
    "finished-run": decode_finished,
    "evaluation": decode_evaluation,
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
MODELS = {short_name(ce_type): model for ce_type, (model, _) in WIRE_MODELS.items()}
MODELS_OF_EVENTS = event_models()


def survives(sample: JsonValue, again: JsonValue) -> bool:
    """Whether all that the sample says is said again. `null` may go, and `content` is written as `parts`."""
    if isinstance(sample, dict) and isinstance(again, dict):
        if isinstance(sample.get("content"), str) and "type" not in sample:
            sample = {"role": sample["role"], "parts": [{"type": "text", "content": sample["content"]}]}
        known = {name: value for name, value in sample.items() if not name.startswith("x-")}
        return all(survives(value, again.get(name)) for name, value in known.items())
    if isinstance(sample, list) and isinstance(again, list):
        return len(sample) == len(again) and all(map(survives, sample, again))
    if isinstance(sample, str) and isinstance(again, str) and INSTANT.fullmatch(sample):
        return datetime.fromisoformat(sample) == datetime.fromisoformat(again)
    return sample == again


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_a_golden_sample_parses_and_nothing_of_it_is_lost(sample: Sample) -> None:
    value = DECODERS[sample.kind](sample.record)
    assert type(value) is MODELS[sample.kind], value
    assert isinstance(value, BaseModel)
    again = json.loads(value.model_dump_json(exclude_none=True))
    assert survives(sample.value, again)


@pytest.mark.parametrize("kind", DECODERS)
def test_the_samples_together_set_every_field_of_every_model(kind: str) -> None:
    never: set[str] = set()
    ever: set[str] = set()

    def look(value: object) -> None:
        if isinstance(value, BaseModel):
            name = type(value).__name__
            never.update(f"{name}.{field}" for field in type(value).model_fields)
            ever.update(f"{name}.{field}" for field in value.model_fields_set)
            for field in type(value).model_fields:
                look(getattr(value, field))
        elif isinstance(value, tuple):
            for item in value:
                look(item)

    for sample in samples(kind):
        look(DECODERS[kind](sample.record))
    # Events that no sample has would be missing here altogether.
    assert never - ever == set()
    if kind == "stream-events":
        assert {name.split(".")[0] for name in ever} >= {model.__name__ for model in MODELS_OF_EVENTS}


def test_the_smallest_sample_says_what_the_design_says() -> None:
    smallest = next(sample for sample in samples("invoke-request") if sample.name.endswith("minimal"))
    request = decode_request(smallest.record)
    assert isinstance(request, InvokeRequest)
    assert [message.text for message in request.messages] == ["hi"]
