"""What a reader makes of output records, also of those that a newer worker wrote."""

import json

import pytest
from pydantic import JsonValue

from agentstream.schemas.codec import decode_events, decode_finished, decode_result
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import MessageEnded, PartDelta, RunEnded, RunStarted, StreamEvents, UnknownEvent
from agentstream.schemas.headers import CE_TYPE
from agentstream.schemas.messages import TextPart
from agentstream.schemas.results import FinishedRun, InvokeResult
from tests.golden.files import a_record, samples

RUN: dict[str, JsonValue] = {"run_id": "r", "session_id": "s", "claim": 1, "attempt": 1, "attempt_id": "a"}
RESULT: dict[str, JsonValue] = {
    **RUN,
    "partition": 0,
    "status": "completed",
    "deltas": "complete",
    "parameters": {},
    "ended_at": "2026-01-31T12:00:01Z",
}


def result_of(**fields: JsonValue) -> InvokeResult:
    result = decode_result(a_record(json.dumps({**RESULT, **fields}).encode()))
    assert isinstance(result, InvokeResult), result
    return result


def events_of(*events: dict[str, JsonValue]) -> StreamEvents:
    numbered: list[JsonValue] = [{"seq": seq, **event} for seq, event in enumerate(events)]
    read = decode_events(a_record(json.dumps({**RUN, "first_seq": 0, "events": numbered}).encode()))
    assert isinstance(read, StreamEvents), read
    return read


def test_an_event_of_an_unknown_type_is_kept_for_its_place() -> None:
    started: dict[str, JsonValue] = {"type": "run.started", "harness": "pi", "of_a_newer_minor": 1}
    delta: dict[str, JsonValue] = {
        "type": "part.delta", "message_id": "m", "part_index": 0, "part_type": "text", "delta": "hi"
    }  # fmt: skip
    read = events_of(started, {"type": "weather.changed", "degrees": 3, "turn": 1}, delta)
    assert [type(event) for event in read.events] == [RunStarted, UnknownEvent, PartDelta]
    assert [event.seq for event in read.events] == [0, 1, 2]
    assert read.events[1].type == "weather.changed"


def test_a_known_event_that_is_broken_is_no_unknown_event() -> None:
    value = json.dumps({**RUN, "first_seq": 0, "events": [{"type": "part.delta", "seq": 0}]}).encode()
    problem = decode_events(a_record(value))
    assert isinstance(problem, Problem)
    assert problem.code is ErrorCode.SCHEMA_INVALID
    assert problem.detail == "events.0.message_id: is required"


def test_a_status_of_a_newer_version_is_read_as_failed_and_says_why() -> None:
    result = result_of(status="paused")
    assert result.status == "failed"
    assert result.error == Problem.of(
        ErrorCode.UNSUPPORTED_VERSION, "status: this version does not know the run's outcome; upgrade the reader"
    )


def test_an_error_code_of_a_newer_version_keeps_its_title_and_detail() -> None:
    newer: JsonValue = {
        "code": "quota_gone", "title": "The quota is gone", "detail": "d", "retriable": True, "stage": "billing"
    }  # fmt: skip
    result = result_of(status="failed", error=newer)
    assert result.error is not None
    assert (result.error.code, result.error.stage) == ("internal", "execute")
    assert (result.error.title, result.error.detail, result.error.retriable) == ("The quota is gone", "d", True)
    ended = events_of({"type": "run.ended", "status": "paused", "error": newer, "finish_reason": "tired"}).events[0]
    assert isinstance(ended, RunEnded)
    assert (ended.status, ended.finish_reason) == ("failed", None)


def test_other_values_of_a_newer_version_fall_back() -> None:
    result = result_of(
        finish_reason="tired",
        deltas="doubtful",
        parameters={"thinking": "cosmic", "stream": "holes", "tools": ["bash"]},
    )
    assert (result.finish_reason, result.deltas) == (None, "partial")
    assert (result.parameters.thinking, result.parameters.stream, result.parameters.tools) == (None, None, ("bash",))


def test_a_part_of_a_newer_type_becomes_a_text_that_says_so() -> None:
    parts: list[JsonValue] = [{"type": "text", "content": "hi"}, {"type": "hologram", "content": {"x": 1}}]
    message: JsonValue = {"role": "assistant", "parts": parts}
    placeholder = TextPart(content="[a part of a type that this version does not know]")
    assert result_of(messages=[message]).messages[0].parts == (TextPart(content="hi"), placeholder)
    ended = events_of({"type": "message.ended", "message_id": "m", "message": message}).events[0]
    assert isinstance(ended, MessageEnded)
    assert ended.message is not None
    assert ended.message.parts[1] == placeholder


@pytest.mark.parametrize("decode", [decode_result, decode_events, decode_finished])
@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff", b"{}", b'{"status":"paused"}', b"[" * 100_000])
def test_a_reader_never_raises(decode: object, value: bytes | None) -> None:
    assert callable(decode)
    assert isinstance(decode(a_record(value)), Problem)


def test_another_major_version_is_refused() -> None:
    record = a_record(json.dumps(RESULT).encode(), headers=[(CE_TYPE, b"agentstream.invoke-result.v2")])
    problem = decode_result(record)
    assert isinstance(problem, Problem)
    assert problem.code is ErrorCode.UNSUPPORTED_VERSION


def test_a_finished_run_of_a_newer_status_is_not_run_again() -> None:
    line = decode_finished(a_record(b'{"status":"paused","offset":3,"body_hash":"9f86d081884c7d65"}'))
    assert isinstance(line, FinishedRun)
    assert (line.status, line.offset) == ("failed", 3)


def test_what_we_write_is_read_back_as_it_was() -> None:
    for sample in samples("invoke-result"):
        result = decode_result(sample.record)
        assert isinstance(result, InvokeResult)
        assert decode_result(a_record(result.to_bytes())) == result


def test_a_character_cut_in_half_costs_itself_and_not_the_record() -> None:
    # A JavaScript string may end inside an emoji: the sidecar's JSON then holds a lone surrogate, which UTF-8 cannot.
    half = PartDelta(message_id="m", part_index=0, part_type="text", delta="a\ud83d")
    both = PartDelta(message_id="m", part_index=0, part_type="text", delta="\ud83d\ude00")
    assert json.loads(half.to_bytes())["delta"] == "a\N{REPLACEMENT CHARACTER}"
    assert json.loads(both.to_bytes())["delta"] == "😀"
