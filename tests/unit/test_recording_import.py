"""Data sets of one's own as recordings."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.consumers.replay.recording.importing import BrokenLine, read_cases
from agentstream.consumers.replay.recording.manifest import RecordingError
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun


def cases(path: Path, *lines: JsonValue | bytes) -> list[RecordedRun | BrokenLine]:
    file = path / "cases.jsonl"
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return list(read_cases(file))


def test_each_form_of_a_case_is_read(tmp_path: Path) -> None:
    hi: JsonValue = {"role": "user", "content": "hi"}
    first, second, third, fourth = cases(
        tmp_path,
        {"input": "hi", "expected": "hello"},
        b"  ",
        {"id": "b", "session_id": "s", "messages": [hi], "parameters": {"model": "a/b"}, "metadata": {"n": 1, "t": ""}},
        {"id": "c", "session_id": "s", "input": [hi], "target": {"answer": 4}},
        b'\xef\xbb\xbf{"input": "hi", "id": "d"}\r',
    )  # fmt: skip
    assert isinstance(first, RecordedRun)
    assert (first.run_id, first.session_id, first.expected) == ("case-000001", "case-000001", "hello")
    assert first.request.messages == (Message.of_text("user", "hi"),)
    assert (first.result, first.events, first.gaps, first.source) == (None, (), (), None)
    assert isinstance(second, RecordedRun)
    assert second.request.metadata == {"n": "1", "t": ""}
    assert second.request.parameters.model == "a/b"
    assert isinstance(third, RecordedRun)
    assert (second.turn, third.turn, third.expected) == (0, 1, {"answer": 4})
    assert isinstance(fourth, RecordedRun)


BROKEN: list[tuple[JsonValue | bytes, str]] = [
    (b"{", "not JSON at line 1"),
    (b"[1]", "the value must be a JSON object"),
    (b"\xff", "not UTF-8"),
    ({}, "one of `messages` and `input` is required"),
    ({"input": "x", "messages": []}, "one of `messages` and `input` is required, and only one"),
    ({"input": 3}, "`input` must be a text, or messages"),
    ({"input": "x", "id": "a b"}, "id: "),
    ({"input": "x", "inputs": "y"}, "`inputs` is no field of a case"),
    ({"input": "x", "expected": 1, "target": 2}, "mean the same"),
    ({"input": "x", "metadata": [1]}, "`metadata` must be an object"),
    ({"input": "x", "parameters": {"model": "gpt"}}, "parameters.model: "),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "the last message must be from `user` or `tool`"),
]


@pytest.mark.parametrize(("line", "why"), BROKEN, ids=[why for _, why in BROKEN])
def test_a_line_that_is_no_case_says_why_and_those_around_it_are_read(
    tmp_path: Path, line: JsonValue | bytes, why: str
) -> None:
    good, bad, other = cases(tmp_path, {"input": "x"}, line, {"input": "y"})
    assert isinstance(good, RecordedRun)
    assert isinstance(other, RecordedRun)
    assert isinstance(bad, BrokenLine)
    assert bad.number == 2
    assert why in bad.why
    assert "\n" not in bad.why


def test_an_id_stands_once(tmp_path: Path) -> None:
    found = cases(tmp_path, {"id": "a", "input": "x"}, {"id": "a", "input": "y"}, {"id": "b", "input": "z"})
    assert found[1] == BrokenLine(number=2, why="`id` a stands on an earlier line too")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        list(read_cases(tmp_path / "nowhere.jsonl"))
