"""Pieces of an OTLP request of spans as bytes, each different one written once for a request.

A protobuf message is the bytes of its fields, one after the other: what was written before can stand in it again.
"""

import logging
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

log = logging.getLogger(__name__)
TIME_OF_EVENT: Final = b"\x09"
"""Number and wire type of that field; eight bytes follow."""
_FLOAT: Final = struct.Struct("<d")
_DOUBLE: Final = b"\x21"
_INT: Final = b"\x18"
_TOO_LARGE: Final = 1 << 63


class Known:
    """What has been written for one request."""

    def __init__(self) -> None:
        self.names: Final = _Names()
        self.events: Final = _EventNames()
        self.links: Final[dict[tuple[str, int, bool], bytes]] = {}
        """What links have beside a place: by the looks of their attributes, how many of those were dropped, and whether
        the place is remote."""
        self._heads: Final = _TextHeads()
        self._floats: Final = _FloatHeads()
        self._ints: Final = _IntHeads()
        # By type, since 1 and True are one key of a dictionary, and by name: a pair of both would have to be made, and
        # hashed, each time.
        self._values: Final[dict[type, defaultdict[str, dict[object, bytes]]]] = {
            kind: defaultdict(dict) for kind in (str, int, bool)
        }
        self._others: Final[dict[tuple[str, type, str], bytes]] = {}
        """By type and looks."""
        self._shared: Final[dict[int, tuple[Mapping[str, object], bytes]]] = {}
        """By identity. They are kept as well: another one could else have the same."""

    def shared(self, attributes: Mapping[str, object]) -> bytes:
        """All of these, which stay as they are, as they stand in a span."""
        found = self._shared.get(id(attributes))
        if found is None:
            pieces: list[bytes] = []
            self.add(attributes, pieces)
            found = self._shared[id(attributes)] = attributes, b"".join(pieces)
        return found[1]

    def add(self, attributes: Mapping[str, object], pieces: list[bytes]) -> None:
        """Append all of a span's attributes, as they stand in it; one that cannot be written is left out."""
        values = self._values
        for key, value in attributes.items():
            kind = type(value)
            if kind in values:
                known = values[kind][key]
                if (piece := known.get(value)) is None:
                    piece = known[value] = self._new(key, value)
            elif kind is float:  # hardly one is there twice
                piece = self._floats[key] + _FLOAT.pack(value)
            else:
                piece = self._other(key, value)
            pieces.append(piece)

    def _new(self, key: str, value: object) -> bytes:
        """What is said of one run alone; by protobuf's classes it takes six times as long."""
        if isinstance(value, str):
            try:
                written = value.encode()
                return self._heads[key, len(written)] + written
            except UnicodeEncodeError as error:
                _left_out(key, error)
                return b""
        if type(value) is int and 0 <= value < _TOO_LARGE:
            digits = _varint(value)
            return self._ints[key, len(digits)] + digits
        return _attribute(key, value)

    def _other(self, key: str, value: object) -> bytes:
        looks = (key, type(value), repr(value))
        found = self._others.get(looks)
        if found is None:
            found = self._others[looks] = _attribute(key, value)
        return found


class _Names(dict[str, bytes]):
    """Spans' names, as they stand in them."""

    def __missing__(self, name: str) -> bytes:
        piece = self[name] = field(otlp.Span.NAME_FIELD_NUMBER, name.encode())
        return piece


class _EventNames(dict[str, tuple[bytes, bytes]]):
    """What stands before and after the time of an event that has nothing but a name."""

    def __missing__(self, name: str) -> tuple[bytes, bytes]:
        after = field(otlp.Span.Event.NAME_FIELD_NUMBER, name.encode())
        before = head(otlp.Span.EVENTS_FIELD_NUMBER, len(TIME_OF_EVENT) + 8 + len(after)) + TIME_OF_EVENT
        self[name] = before, after
        return before, after


class _FloatHeads(dict[str, bytes]):
    """What stands before a number of eight bytes, by the attribute's name."""

    def __missing__(self, key: str) -> bytes:
        piece = self[key] = _pair(key, _DOUBLE + bytes(8))[:-8]
        return piece


class _IntHeads(dict[tuple[str, int], bytes]):
    """What stands before a whole number of so many bytes, by the attribute's name."""

    def __missing__(self, place: tuple[str, int]) -> bytes:
        key, size = place
        piece = self[place] = _pair(key, _INT + bytes(size))[:-size]
        return piece


class _TextHeads(dict[tuple[str, int], bytes]):
    """What stands before a text of so many bytes, by the attribute's name: ids are all of one length."""

    def __missing__(self, place: tuple[str, int]) -> bytes:
        key, size = place
        whole = _pair(key, field(AnyValue.STRING_VALUE_FIELD_NUMBER, bytes(size)))
        piece = self[place] = whole[: len(whole) - size]
        return piece


def key_values(attributes: Mapping[str, object] | None) -> list[KeyValue]:
    """Attributes of anything; what cannot be written is left out."""
    written: list[KeyValue] = []
    for key, value in (attributes or {}).items():
        try:
            written.append(KeyValue(key=key, value=_value(value)))
        except (ValueError, TypeError) as error:
            _left_out(key, error)
    return written


def field(number: int, body: bytes) -> bytes:
    """One with a length: a text, bytes or a message."""
    return head(number, len(body)) + body


def head(number: int, length: int) -> bytes:
    """What stands before a field's bytes: its number and how many they are."""
    if 0x7F < length < 0x4000:  # nearly all spans
        return bytes((number << 3 | 2, length & 0x7F | 0x80, length >> 7))
    return bytes((number << 3 | 2,)) + _varint(length)


def _varint(number: int) -> bytes:
    """One that is not negative: seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _pair(key: str, value: bytes) -> bytes:
    """An attribute of a span; `value`: the body of an AnyValue."""
    name = field(KeyValue.KEY_FIELD_NUMBER, key.encode())
    return field(otlp.Span.ATTRIBUTES_FIELD_NUMBER, name + field(KeyValue.VALUE_FIELD_NUMBER, value))


def _attribute(key: str, value: object) -> bytes:
    return otlp.Span(attributes=key_values({key: value})).SerializeToString()


def _value(value: object) -> AnyValue:
    if isinstance(value, bool | str | int | float | bytes):
        return _plain(value)
    if isinstance(value, Mapping):
        pairs = [KeyValue(key=str(key), value=_value(each)) for key, each in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=pairs))
    if isinstance(value, Sequence):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue() if value is None else AnyValue(string_value=str(value))


def _plain(value: bool | str | float | bytes) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(bytes_value=value)


def _left_out(key: str, error: Exception) -> None:
    log.warning("an attribute is left out that cannot be written: %s: %s", key, type(error).__name__)
