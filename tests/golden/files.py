"""Reads the golden files."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from agentstream.schemas.json_schema import Schema
from agentstream.schemas.records import Headers, Position, Record

GOLDEN = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A record as it may lie on a topic."""

    name: str
    """File name without `.json`: `invoke-request.full`."""
    value: dict[str, JsonValue]
    """Its value."""
    record: Record
    """The whole record."""

    @property
    def kind(self) -> str:
        """Short name of its wire model."""
        return self.name.split(".")[0]


def a_record(
    value: bytes | None, *, key: bytes | None = b"session-7", headers: Headers = (), offset: int = 4711
) -> Record:
    """Make a record of the input topic."""
    position = Position(topic="agent.invoke-requests", partition=3, offset=offset)
    return Record(position=position, timestamp_ms=1_769_860_800_000, key=key, value=value, headers=headers)


def samples(kind: str = "") -> list[Sample]:
    """All samples, or those of one wire model."""
    return [_sample(path) for path in sorted((GOLDEN / "samples").glob(f"{kind}*.json"))]


def baseline(name: str) -> Schema:
    """Give a file of `schemas-v1/`."""
    return _object(GOLDEN / "schemas-v1" / f"{name}.json")


def asyncapi_schema() -> Schema:
    """AsyncAPI 3.1's own schema of its documents."""
    return _object(GOLDEN / "asyncapi" / "3.1.0.json")


def at(document: JsonValue, *path: str | int) -> JsonValue:
    """Walk down a document; a test fails where the path does not lead."""
    for name in path:
        if isinstance(document, list):
            document = document[int(name)]
        else:
            assert isinstance(document, dict)
            document = document[str(name)]
    return document


def object_at(document: JsonValue, *path: str | int) -> dict[str, JsonValue]:
    """Walk down to an object."""
    found = at(document, *path)
    assert isinstance(found, dict)
    return found


def list_at(document: JsonValue, *path: str | int) -> list[JsonValue]:
    """Walk down to an array."""
    found = at(document, *path)
    assert isinstance(found, list)
    return found


def _sample(path: Path) -> Sample:
    content = _object(path)
    key, headers, value = content["key"], content["headers"], content["value"]
    assert isinstance(headers, list)
    assert isinstance(value, dict)
    pairs = [(str(pair[0]), str(pair[1]).encode()) for pair in headers if isinstance(pair, list)]
    record = a_record(
        json.dumps(value, ensure_ascii=False).encode(),
        key=key.encode() if isinstance(key, str) else None,
        headers=pairs,
    )
    return Sample(name=path.stem, value=value, record=record)


def _object(path: Path) -> Schema:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
