"""What a group committed, read from the brokers' own `__consumer_offsets`, and what its metadata claims.

Written out here once more, and not the engine's own decoder: a mistake in that one must not hide itself.
"""

import base64
import json
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One committed offset of one partition."""

    partition: int
    """The input partition."""
    offset: int
    """Everything below is finished."""
    metadata: str
    """What the committer wrote beside it."""
    timestamp_ms: int = 0
    """When the broker wrote it down."""
    generation: int = 0
    """The group's generation at that time."""
    generation_ms: int = 0
    """When that generation began."""

    @property
    def version(self) -> int | str | None:
        """Of the metadata's format; None where there is no metadata, a word where it is not ours."""
        return None if not self.metadata else self._body.get("v", "unknown")

    @property
    def owner(self) -> str:
        """Who committed, empty where nobody is told."""
        return str(self._body.get("o", ""))

    @property
    def claim(self) -> int:
        """The number of the claim that committed, 0 where none is told."""
        return int(self._body.get("c", 0))

    @property
    def number(self) -> int:
        """Which commit of its claim."""
        return int(self._body.get("k", 0))

    @property
    def next_offset(self) -> int:
        """Below this one, everything is finished that is not open."""
        return self.offset + int(self._body.get("n", 0))

    @property
    def open(self) -> set[int]:
        """Offsets from `offset` to `next_offset` that are not finished."""
        return {self.offset + distance for distance in _unpacked(self._body.get("p", ""))}

    @property
    def _body(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.metadata or "{}")
        return parsed


def commit_of(record: Any, wanted: tuple[str, str]) -> Commit | None:
    """The commit that a record of `__consumer_offsets` is, if it is one of this group and topic."""
    data = BytesIO(record.key or b"")
    if _int(data, "h") not in (0, 1) or (_text(data), _text(data)) != wanted or record.value is None:
        return None
    partition, value = _int(data, "i"), BytesIO(record.value)
    version, offset = _int(value, "h"), _int(value, "q")
    if version >= 3:
        _int(value, "i")  # leader epoch
    metadata = _compact_text(value) if version >= 4 else _text(value)
    return Commit(partition=partition, offset=offset, metadata=metadata, timestamp_ms=record.timestamp)


def generation_of(record: Any, group_id: str) -> int | None:
    """The generation that a record of `__consumer_offsets` begins, if it is one of this group."""
    key = BytesIO(record.key or b"")
    if _int(key, "h") != 2 or _text(key) != group_id or record.value is None:
        return None
    value = BytesIO(record.value)
    _compact_text(value) if _int(value, "h") >= 4 else _text(value)  # the protocol's type
    return _int(value, "i")


def _int(data: BytesIO, kind: str) -> int:
    (number,) = struct.unpack(f">{kind}", data.read(struct.calcsize(kind)))
    return int(number)


def _text(data: BytesIO) -> str:
    return data.read(max(0, _int(data, "h"))).decode()


def _compact_text(data: BytesIO) -> str:
    return data.read(next(_varints(data)) - 1).decode()


def _varints(data: BytesIO) -> Any:
    value = shift = 0
    while byte := data.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            yield value
            value = shift = 0


def _unpacked(text: str) -> list[int]:
    """Numbers from 0 as gaps, varints, deflated, in base64url."""
    if not text:
        return []
    packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    numbers, last = list[int](), -1
    for gap in _varints(BytesIO(zlib.decompress(packed, wbits=-15))):
        last += gap + 1
        numbers.append(last)
    return numbers
