"""A quick look at bytes that hold nothing wrong, which is what nearly all of them hold.

parse_quickly(value, bounds) -> the object, or None: look carefully

It proves that nothing is wrong and says nothing about what might be: that is `parsing`'s, which is asked about every
value that raises a doubt here, and answers the same for all others (a property test compares the two).
"""

import json
import math
from functools import lru_cache

from agentstream.schemas.bounds import Bounds, Json


class _DoubtError(ValueError):
    """Something may be wrong."""


def parse_quickly(value: bytes | None, bounds: Bounds) -> Json | None:
    """The object if it is JSON of UTF-8 within bounds, with no name twice, no odd number and no lone surrogate."""
    # No character takes less than a byte, so no string is longer than the value.
    if not value or len(value) > bounds.max_bytes or len(value) > bounds.max_string_chars:
        return None
    # UTF-8 has no surrogates: they come out of escapes. One search where, as a rule, there is no escape at all.
    if b"\\" in value and (b"\\ud" in value or b"\\uD" in value):
        return None
    try:
        text = value.decode()
        document, end = _decoder(bounds.max_number_chars).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if end != len(text) or type(document) is not dict:
        return None
    return document if _is_small(value, bounds) or _is_within(document, bounds) else None


def _is_small(value: bytes, bounds: Bounds) -> bool:
    """Whether so few bytes can break no bound: each value takes two with its comma, each level a bracket."""
    if len(value) > bounds.max_name_chars or len(value) > 2 * bounds.max_nodes:
        return False
    return value.count(b"[") + value.count(b"{") <= bounds.max_depth


def _is_within(document: Json, bounds: Bounds) -> bool:
    """Depth, number of values and length of names: level by level, since a call per value costs four times as much."""
    level: list[Json | list[object]] = [document]
    nodes = 1
    names: set[str] = set()
    for _ in range(bounds.max_depth):
        below: list[object] = []
        for node in level:
            if isinstance(node, dict):
                names.update(node)
                below += node.values()
            else:
                below += node
        nodes += len(below)
        level = [child for child in below if type(child) is dict or type(child) is list]
        if not level:
            return nodes <= bounds.max_nodes and max(map(len, names), default=0) <= bounds.max_name_chars
    return False


@lru_cache(maxsize=8)
def _decoder(max_number_chars: int) -> json.JSONDecoder:
    """A decoder that raises ValueError at the first doubt."""

    def whole(digits: str) -> int:
        if len(digits) > max_number_chars:
            raise _DoubtError(digits)
        return int(digits)

    def fraction(digits: str) -> float:
        if len(digits) <= max_number_chars and math.isfinite(number := float(digits)):
            return number
        raise _DoubtError(digits)

    def constant(name: str) -> float:
        raise _DoubtError(name)

    return json.JSONDecoder(object_pairs_hook=_object, parse_int=whole, parse_float=fraction, parse_constant=constant)


def _object(pairs: list[tuple[str, object]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DoubtError("a name stands twice")
    return members
