"""Bytes to a JSON object within bounds. Total: whatever the bytes are, the answer is a value, never an exception.

parse_object(value, bounds) -> Parsed     the object, and what is wrong with it
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from agentstream.schemas.bounds import DEFAULT_BOUNDS, Bounds, Json
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.quick_parsing import parse_quickly

_SHOWN_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
_MAX_PLACE = 120
_DANGLING = re.compile(r"(?: (?:starting )?at|:) ?$")
"""Python's decoder ends some sentences with `at` or a colon, for a place that we say before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What became of the bytes."""

    document: Json | None
    """The object, as far as there is one: also where something is wrong with it, so that its id can be read."""
    problem: Problem | None
    """What is wrong; None: nothing, and the document is there."""


def parse_object(value: bytes | None, bounds: Bounds = DEFAULT_BOUNDS) -> Parsed:
    """The JSON object that the bytes hold. One UTF-8 byte order mark at the beginning is ignored (RFC 8259 §8.1)."""
    document = parse_quickly(value, bounds)
    return parse_carefully(value, bounds) if document is None else Parsed(document=document, problem=None)


def parse_carefully(value: bytes | None, bounds: Bounds = DEFAULT_BOUNDS) -> Parsed:
    """The same by a look at every value, which finds the first that is wrong; twice the price of the quick one."""
    parsed = _parse(value, bounds)
    if isinstance(parsed, Problem):
        return Parsed(document=None, problem=parsed)
    if not isinstance(parsed, dict):
        return Parsed(document=None, problem=Problem.of(ErrorCode.SCHEMA_INVALID, "the value must be a JSON object"))
    flaw = _Inspection(bounds=bounds).flaw(parsed, 1)
    return Parsed(document=parsed, problem=None if flaw is None else flaw.problem)


def place(names: Iterable[object]) -> str:
    """Where something is, as `messages.0.parts`. A name that is long or odd is shown as `?`: it may be a secret."""
    text = ".".join(name if _SHOWN_NAME.fullmatch(name) else "?" for name in map(str, names))
    return text if len(text) <= _MAX_PLACE else f"{text[:_MAX_PLACE]}…"


def at(names: Iterable[object], sentence: str) -> str:
    """One line that says what is wrong and where."""
    where = place(names)
    return f"{where}: {sentence}" if where else sentence


def is_text(value: str) -> bool:
    """Whether UTF-8 has a place for all of it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse(value: bytes | None, bounds: Bounds) -> object:
    if problem := _unreadable(value, bounds):
        return problem
    try:
        return _decoder(bounds.max_number_chars).decode((value or b"").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _malformed(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return _malformed(f"not JSON at line {error.lineno} column {error.colno}: {_DANGLING.sub('', error.msg)}")
    except RecursionError:
        return _too_deep(bounds)


def _unreadable(value: bytes | None, bounds: Bounds) -> Problem | None:
    """What can be said before anything is parsed."""
    if not value:
        return _malformed("the value is empty")
    if len(value) > bounds.max_bytes:
        return _too_large(f"the value has {len(value)} bytes; at most {bounds.max_bytes} are allowed")
    if value[0] == 0:
        return _malformed(
            "the value begins with 0x00, as a schema registry's serializer writes it: "
            "send plain JSON with a string or byte-array serializer"
        )
    return None


class _Repeated(Json):
    """An object in which a name stood twice. What stood twice is left out: of two ids none is the run's."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        counts = Counter(name for name, _ in pairs)
        super().__init__((name, value) for name, value in pairs if counts[name] == 1)
        self.name = next(name for name, count in counts.items() if count > 1)


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Stands for a number that was not read."""

    problem: Problem


def _object(pairs: list[tuple[str, object]]) -> Json:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Repeated(pairs)


@lru_cache(maxsize=8)
def _decoder(max_number_chars: int) -> json.JSONDecoder:
    """A decoder that raises for no number: it puts an `_Unfit` in its place, which the inspection finds and names."""

    def read(number: Callable[[str], object]) -> Callable[[str], object]:
        def reader(digits: str) -> object:
            return number(digits) if len(digits) <= max_number_chars else long

        return reader

    long = _Unfit(_too_large(f"a number may have at most {max_number_chars} digits"))
    not_json = _Unfit(_malformed("NaN and Infinity are not JSON"))
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_int=read(int), parse_float=read(float), parse_constant=lambda _: not_json
    )


@dataclass(slots=True)
class _Flaw:
    """Something wrong, and the way to it, innermost name last."""

    what: Problem
    path: list[object] = field(default_factory=list)

    @property
    def problem(self) -> Problem:
        return Problem.of(self.what.code, at(reversed(self.path), self.what.detail or self.what.title))


@dataclass(slots=True)
class _Inspection:
    """One walk over a parsed value. Recursion is safe: it goes no deeper than the bounds allow."""

    bounds: Bounds
    nodes: int = 1

    def flaw(self, node: object, depth: int) -> _Flaw | None:
        """The first thing wrong at or below the node."""
        if isinstance(node, str):
            return self._of_text(node, self.bounds.max_string_chars)
        if isinstance(node, dict | list):
            return self._of_container(node, depth)
        if isinstance(node, _Unfit):
            return _Flaw(node.problem)
        if isinstance(node, float) and not math.isfinite(node):
            return _Flaw(Problem.of(ErrorCode.SCHEMA_INVALID, "the number is too large for a double"))
        return None

    def _of_container(self, node: Json | list[object], depth: int) -> _Flaw | None:
        self.nodes += len(node)
        if depth > self.bounds.max_depth:
            return _Flaw(_too_deep(self.bounds))
        if self.nodes > self.bounds.max_nodes:
            return _Flaw(_too_large(f"more than {self.bounds.max_nodes} values"))
        if isinstance(node, dict) and (flaw := self._of_names(node)):
            return flaw
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            if flaw := self.flaw(child, depth + 1):
                flaw.path.append(name)
                return flaw
        return None

    def _of_names(self, node: Json) -> _Flaw | None:
        if isinstance(node, _Repeated):
            return _Flaw(_malformed("the name stands twice in its object"), [node.name])
        for name in node:
            if flaw := self._of_text(name, self.bounds.max_name_chars):
                return flaw
        return None

    def _of_text(self, text: str, limit: int) -> _Flaw | None:
        if len(text) > limit:
            return _Flaw(_too_large(f"a text of {len(text)} characters; at most {limit} are allowed"))
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                # It would be refused by whatever writes it next, far from here: UTF-8 has no place for it.
                return _Flaw(_malformed("a lone surrogate such as \\ud800 is no character"))
        return None


def _malformed(detail: str) -> Problem:
    return Problem.of(ErrorCode.MALFORMED_JSON, detail)


def _too_large(detail: str) -> Problem:
    return Problem.of(ErrorCode.PAYLOAD_TOO_LARGE, detail)


def _too_deep(bounds: Bounds) -> Problem:
    return _too_large(f"nested more than {bounds.max_depth} deep")
