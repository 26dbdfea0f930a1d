"""Compares two JSON Schemas of one wire model: what would break a program that was written for the old one.

`in`: callers write it and may be old. `out`: workers write it and readers may be old. Additions pass in both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from agentstream.schemas.json_schema import Direction, Schema

_UPPER = ("maxLength", "maxItems", "maxProperties", "maximum")
_LOWER = ("minLength", "minItems", "minimum")


def breaking_changes(old: Schema, new: Schema, direction: Direction) -> list[str]:
    """One sentence per change that breaks an old program; empty: compatible."""
    return sorted(set(_Comparison(old=old, new=new, direction=direction).compare("", old, new)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    old: Schema
    new: Schema
    direction: Direction

    def compare(self, place: str, old: Schema, new: Schema) -> Iterator[str]:
        """What breaks at and below one place."""
        was, now = _alternatives(self.old, old), _alternatives(self.new, new)
        if self.direction == "out":
            # Absent fields are left out, so no reader ever meets null.
            was.pop("null", None)
            now.pop("null", None)
        for kind, node in was.items():
            if kind in now:
                yield from self._same_kind(f"{place}<{kind}>" if kind.startswith("type=") else place, node, now[kind])
            else:
                yield f"{place}: {kind} was removed"
        if self.direction == "out":
            yield from (f"{place}: {kind} is new to readers" for kind in now.keys() - was.keys() if "=" not in kind)

    def _same_kind(self, place: str, old: Schema, new: Schema) -> Iterator[str]:
        yield from self._values(place, old, new)
        if self.direction == "in":
            yield from _tightened(place, old, new)
        yield from self._required(place, old, new)
        was, now = _mapping(old.get("properties")), _mapping(new.get("properties"))
        for name, node in was.items():
            if name in now:
                yield from self.compare(f"{place}.{name}", _schema(node), _schema(now[name]))
            else:
                yield f"{place}.{name}: was removed"
        for inner in ("items", "additionalProperties"):
            if isinstance(old.get(inner), dict):
                yield from self.compare(f"{place}[]", _schema(old[inner]), _schema(new.get(inner)))

    def _values(self, place: str, old: Schema, new: Schema) -> Iterator[str]:
        was, now = _values(old), _values(new)
        if was is not None and now is not None:
            yield from (f"{place}: the value {value} was removed" for value in was - now)
        elif was is None and now is not None and self.direction == "in":
            yield f"{place}: was any value, is now one of a few"
        if old.get("format") != new.get("format"):
            yield f"{place}: the format changed"

    def _required(self, place: str, old: Schema, new: Schema) -> Iterator[str]:
        was, now = _names(old.get("required")), _names(new.get("required"))
        # Of output too: a new reader meets records of the old writer for as long as they are kept.
        yield from (f"{place}.{name}: is newly required" for name in now - was)
        if self.direction == "out":
            yield from (f"{place}.{name}: is no longer always there" for name in was - now)


def _tightened(place: str, old: Schema, new: Schema) -> Iterator[str]:
    for names, closer in ((_UPPER, -1), (_LOWER, 1)):
        for name in names:
            was, now = old.get(name), new.get(name)
            if isinstance(now, int) and (not isinstance(was, int) or (now - was) * closer > 0):
                yield f"{place}: {name} is narrower"
    if new.get("pattern") not in (None, old.get("pattern")):
        yield f"{place}: the pattern changed"


def _alternatives(root: Schema, node: Schema) -> dict[str, Schema]:
    """The alternatives of a node by what tells them apart: an object's `type`, else the JSON type."""
    node = _resolved(root, node)
    members = node.get("anyOf") or (None if "properties" in node else node.get("oneOf"))
    if not isinstance(members, list):
        return {_kind(node): node}
    found: dict[str, Schema] = {}
    for member in members:
        found |= _alternatives(root, _schema(member))
    return found


def _kind(node: Schema) -> str:
    tag = _mapping(_mapping(node.get("properties")).get("type")).get("const")
    return f"type={tag}" if isinstance(tag, str) else str(node.get("type", "any"))


def _resolved(root: Schema, node: Schema) -> Schema:
    while isinstance(reference := node.get("$ref"), str):
        node = _schema(_mapping(root["$defs"])[reference.rsplit("/", 1)[1]])
    return node


def _values(node: Schema) -> set[str] | None:
    if "const" in node:
        return {str(node["const"])}
    return _names(node["enum"]) if "enum" in node else None


def _names(value: JsonValue) -> set[str]:
    return {str(name) for name in value} if isinstance(value, list) else set()


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _schema(value: JsonValue) -> Schema:
    return value if isinstance(value, dict) else {}
