"""The pipe's lines: defined once, checked on both sides by the same golden lines."""

import json
from pathlib import Path
from typing import Any

import pytest

import agentstream.infra
from agentstream.consumers.harness.pi_protocol import (
    MAX_LINE_BYTES,
    OUTGOING,
    PROTOCOL,
    CancelLine,
    DoneLine,
    Incoming,
    Outgoing,
    ReadyLine,
    UnreadableLine,
    parse_line,
)

PROJECT = Path(str(agentstream.infra.__file__)).parent / "pi-sidecar"
GOLDEN = [json.loads(line) for line in (PROJECT / "test" / "golden-lines.jsonl").read_text("utf-8").splitlines()]
TO_SIDECAR = [entry["line"] for entry in GOLDEN if entry["to"] == "sidecar"]
TO_WORKER = [entry["line"] for entry in GOLDEN if entry["to"] == "worker"]


@pytest.mark.parametrize("line", TO_SIDECAR, ids=lambda line: str(line["type"]))
def test_what_we_send_is_the_golden_line(line: dict[str, Any]) -> None:
    assert json.loads(OUTGOING.validate_python(line).to_bytes()) == line


@pytest.mark.parametrize("line", TO_WORKER, ids=lambda line: str(line["type"]))
def test_what_the_sidecar_says_is_understood_whole(line: dict[str, Any]) -> None:
    parsed = parse_line(json.dumps(line).encode())
    dumped = json.loads(parsed.model_dump_json(exclude_unset=True))
    assert dumped == line


def test_every_kind_of_line_has_a_golden_one() -> None:
    def kinds(union: Any) -> set[str]:
        return {member.model_fields["type"].default for member in union.__args__[0].__args__}

    assert {line["type"] for line in TO_SIDECAR} == kinds(Outgoing)
    assert {line["type"] for line in TO_WORKER} == kinds(Incoming)


def test_both_sides_hold_the_same_constants() -> None:
    source = (PROJECT / "src" / "protocol.js").read_text()
    assert f"export const PROTOCOL = {PROTOCOL};" in source
    assert f"MAX_LINE_BYTES = {MAX_LINE_BYTES // 1024 // 1024} * 1024 * 1024;" in source


def test_a_field_of_a_newer_sidecar_is_ignored() -> None:
    line = {"type": "ready", "protocol": 1, "pi": "9", "node": "9", "max_line_bytes": 9, "pid": 9, "mood": "good"}
    assert isinstance(parse_line(json.dumps(line).encode()), ReadyLine)


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b'{"type":"run"}', b'{"type":"done","run":"a","n":0,"status":"ok"}'])
def test_what_cannot_be_read_is_told_without_quoting_it(raw: bytes) -> None:
    with pytest.raises(UnreadableLine) as told:
        parse_line(raw)
    assert raw.decode() not in str(told.value) or not raw


def test_a_line_is_one_line_whatever_stands_in_it() -> None:
    raw = CancelLine(run="a\nb\ud83d").to_bytes()
    assert (raw.count(b"\n"), raw[-1:]) == (1, b"\n")
    assert json.loads(raw)["run"] == "a\nb\ufffd"


def test_a_null_inside_a_tools_arguments_is_kept() -> None:
    message = {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "t", "arguments": {"a": None}}]}
    line = {**TO_SIDECAR[1], "messages": [message, *TO_SIDECAR[1]["messages"]]}
    assert json.loads(OUTGOING.validate_python(line).to_bytes())["messages"][0]["parts"][0]["arguments"] == {"a": None}


def test_a_secret_is_not_in_what_is_printed() -> None:
    run = OUTGOING.validate_python(TO_SIDECAR[0])
    assert "sk-1" not in repr(run)
    assert "blue" not in repr(run)
    assert isinstance(parse_line(json.dumps(TO_WORKER[-4]).encode()), DoneLine)
