"""Output records to values, for programs that may be older than the worker that wrote them. Total, never raises.

What a newer minor version may add, and what becomes of it here:

    a field                        ignored
    an event type                  kept as `UnknownEvent`, to be ignored
    a part type                    a text part that says so
    a status                       `failed` with `unsupported_version`: whatever it means, it is not `completed`
    another enum's value           the fallback in `_FALLBACKS`

The first try costs nothing for this; only a record that fails it is looked at again.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import ValidationError

from agentstream.schemas.base import WireModel
from agentstream.schemas.bounds import Bounds, Json
from agentstream.schemas.errors import ErrorCode, Problem, Stage
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import (
    CE_TYPE,
    EVALUATION,
    FINISHED_RUN,
    INVOKE_RESULT,
    STREAM_EVENTS,
    header_text,
    last_wins,
)
from agentstream.schemas.parsing import parse_object, place
from agentstream.schemas.records import Record
from agentstream.schemas.results import FinishedRun, InvokeResult
from agentstream.schemas.validation import path_in, validated

M = TypeVar("M", bound=WireModel)
READER_BOUNDS: Final = Bounds(
    max_bytes=2**31, max_depth=200, max_nodes=10_000_000, max_number_chars=1_024, max_string_chars=2**31
)
"""Output comes from workers, not from strangers, and may be larger than requests."""

_FALLBACKS: Final[Mapping[str, object]] = {
    "status": "failed",
    "finish_reason": None,
    "code": ErrorCode.INTERNAL.value,
    "stage": Stage.EXECUTE.value,
    "deltas": "partial",
    "reason": "error",
    "role": "assistant",
    "part_type": "text",
    "thinking": None,
    "stream": None,
}
"""By field: what a value that this version does not know is read as. An error keeps its title and detail."""


def decode_result(record: Record) -> InvokeResult | Problem:
    """The result, or what is wrong with the record."""
    return _read(InvokeResult, record, INVOKE_RESULT)


def decode_events(record: Record) -> StreamEvents | Problem:
    """The events, or what is wrong with the record."""
    return _read(StreamEvents, record, STREAM_EVENTS)


def decode_finished(record: Record) -> FinishedRun | Problem:
    """The line of the index, or what is wrong with the record."""
    return _read(FinishedRun, record, FINISHED_RUN)


def decode_evaluation(record: Record) -> EvaluationResult | Problem:
    """What an evaluator said, or what is wrong with the record."""
    return _read(EvaluationResult, record, EVALUATION)


def wrong_type(headers: Mapping[str, bytes], expected: str) -> Problem | None:
    """`unsupported_version` if `ce_type` is a type of ours other than the expected one."""
    ce_type = header_text(headers, CE_TYPE)
    if ce_type is None or ce_type == expected or not ce_type.startswith("agentstream."):
        return None
    return Problem.of(ErrorCode.UNSUPPORTED_VERSION, f"ce_type: {place([ce_type])} instead of {expected}")


def _read(model: type[M], record: Record, ce_type: str) -> M | Problem:
    if problem := wrong_type(last_wins(record.headers), ce_type):
        return problem
    try:
        return model.model_validate_json(record.value or b"")
    except ValidationError as error:
        parsed = parse_object(record.value, READER_BOUNDS)
        if parsed.problem is not None or parsed.document is None:
            return parsed.problem or Problem.of(ErrorCode.MALFORMED_JSON)
        for line in error.errors(include_url=False, include_input=False):
            if line["type"] in {"literal_error", "enum", "union_tag_invalid"}:
                _make_known(parsed.document, path_in(parsed.document, line["loc"]))
        return validated(model, parsed.document)


def _make_known(document: Json, path: list[int | str]) -> None:
    """Put what this version knows in the place of a value it does not know."""
    *way, name = path
    holder: object = document
    for step in way:
        holder = holder[step]  # type: ignore[index]  # the path was followed through this very document
    if isinstance(holder, list) and isinstance(name, int):
        holder[name] = {"type": "text", "content": "[a part of a type that this version does not know]"}
    elif isinstance(holder, dict) and isinstance(name, str) and name in _FALLBACKS:
        if name == "status" and holder.get("error") is None:
            detail = "status: this version does not know the run's outcome; upgrade the reader"
            holder["error"] = Problem.of(ErrorCode.UNSUPPORTED_VERSION, detail).model_dump(mode="json")
        holder[name] = _FALLBACKS[name]
