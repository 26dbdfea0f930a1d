"""A data set of one's own in the form of a recording: JSON Lines, one case a line.

    {"input": "What is 2 + 2?", "expected": "4"}
    {"id": "q7", "session_id": "chat-1", "messages": [{"role": "user", "content": "hi"}], "metadata": {"team": "x"}}

`input` is a text, or messages like `messages`; `target` is another word for `expected`, as in Inspect's data sets.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.replay.recording.manifest import RecordingError
from agentstream.schemas.bounds import Bounds, Json
from agentstream.schemas.errors import Problem
from agentstream.schemas.parsing import parse_object
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.validation import validated

_BOUNDS: Final = Bounds(max_bytes=64 * 1024 * 1024, max_nodes=1_000_000, max_string_chars=64 * 1024 * 1024)
_FIELDS: Final = ("id", "session_id", "messages", "input", "parameters", "expected", "target", "metadata")


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenLine:
    """A line that is no case."""

    number: int
    """Its number in the file, from 1."""
    why: str
    """What is wrong, in one line."""


def read_cases(path: Path) -> Iterator[RecordedRun | BrokenLine]:
    """The cases of a file, one after the other; empty lines are passed over. Raises RecordingError.

    A case without an `id` is named after its line. Those of one session keep the order of the file.
    """
    names: set[str] = set()
    turns: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                case = _case(line, number, turns)
                if isinstance(case, RecordedRun) and case.run_id in names:
                    case = BrokenLine(number=number, why=f"`id` {case.run_id} stands on an earlier line too")
                if isinstance(case, RecordedRun):
                    names.add(case.run_id)
                    turns[case.session_id] += 1
                yield case
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from None


def _case(line: bytes, number: int, turns: Counter[str]) -> RecordedRun | BrokenLine:
    parsed = parse_object(line.rstrip(b"\r\n"), _BOUNDS)
    if parsed.problem is not None or parsed.document is None:
        return BrokenLine(number=number, why=_why(parsed.problem))
    document = parsed.document
    if flaw := _flaw(document):
        return BrokenLine(number=number, why=flaw)
    name = document.get("id", f"case-{number:06}")
    asked = document.get("messages", document.get("input"))
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    request = validated(
        InvokeRequest,
        {
            "id": name,
            "session_id": document.get("session_id", name),
            "messages": messages,
            "parameters": document.get("parameters") or {},
            "metadata": {key: _text(value) for key, value in _object(document, "metadata").items()},
        },
    )
    if isinstance(request, Problem):
        return BrokenLine(number=number, why=_why(request))
    expected: JsonValue = document.get("expected", document.get("target"))  # type: ignore[assignment]  # it is JSON
    run_id, session = request.id or "", request.session_id or ""
    return RecordedRun(run_id=run_id, session_id=session, turn=turns[session], request=request, expected=expected)


def _flaw(document: Json) -> str | None:
    if unknown := [name for name in document if name not in _FIELDS]:
        return f"`{unknown[0][:40]}` is no field of a case; they are {', '.join(_FIELDS)}"
    if ("messages" in document) == ("input" in document):
        return "one of `messages` and `input` is required, and only one"
    if "input" in document and not isinstance(document["input"], str | list):
        return "`input` must be a text, or messages"
    if "expected" in document and "target" in document:
        return "`expected` and `target` mean the same: give one of them"
    if not isinstance(document.get("metadata") or {}, dict):
        return "`metadata` must be an object"
    return None


def _object(document: Json, name: str) -> Json:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _why(problem: Problem | None) -> str:
    return "not JSON" if problem is None else problem.detail or problem.title
