"""What must not leave with a recording: known secrets, patterns, and fields by path; and how often each was found.

Texts are looked through wherever people, models and tools write them. What the form itself is made of stays: ids,
types, statuses, names of tools and models, times.

Two ways in which a value would escape are closed. A pattern may be split over two deltas: the pieces of a part are
looked at as one text. And a field taken out by its path stands elsewhere too, in the events, in the history of a later
turn: its text is taken out of the whole run.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jsonpath
from pydantic import JsonValue, TypeAdapter, ValidationError

from agentstream.consumers.redaction import REDACTED, Redactor
from agentstream.consumers.replay.recording.deltas import join_deltas, rewrite_arguments
from agentstream.consumers.replay.recording.manifest import RecordingError, Redaction
from agentstream.schemas.events import PartDelta
from agentstream.schemas.recordings import RecordedRun

SECRETS: Final = "secrets"
MIN_VALUE: Final = 4
"""A shorter text taken out by its path is not looked for elsewhere: `no` or `42` stand in every run."""
_FREE: Final = frozenset({"arguments", "response", "metadata", "options", "expected", "content"})
"""Fields that hold somebody's own JSON: everything within is text, names too."""
_KEPT: Final = frozenset(
    {
        "type", "role", "status", "finish_reason", "id", "run_id", "session_id", "parent_run_id", "redrive_of",
        "attempt_id", "trace_id", "tool_call_id", "message_id", "interaction_id", "time", "requested_at", "started_at",
        "ended_at", "deadline", "code", "stage", "deltas", "part_type", "topic", "gaps", "kind", "model", "provider",
        "thinking", "stream", "credentials", "amount", "currency", "source", "reason", "tool_name", "name", "tools",
        "modality", "mime_type", "versions", "file_id",
    }
)  # fmt: skip
Document = dict[str, JsonValue]
_COUNTS: Final = TypeAdapter(dict[str, dict[str, int]])


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    pattern: re.Pattern[str]


class Rules:
    """The rules of one recording. `apply` counts; one instance for each recording."""

    def __init__(self, redactor: Redactor, patterns: Sequence[str] = (), paths: Sequence[str] = ()) -> None:
        """Raises RecordingError for a pattern that is no regular expression, or a path that is no JSONPath."""
        self._redactor = redactor
        self._patterns = [_Rule(pattern, _compiled(pattern)) for pattern in patterns]
        self._paths = [(path, _path(path)) for path in paths]
        self._replaced: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, JsonValue]:
        """What `restore` takes: how often each rule found something so far."""
        return {"replaced": dict(self._replaced), "runs": dict(self._runs)}

    def restore(self, counts: JsonValue) -> None:
        """Go on counting from what `counts` was."""
        noted = _COUNTS.validate_python(counts)
        self._replaced, self._runs = Counter(noted["replaced"]), Counter(noted["runs"])

    def report(self) -> tuple[Redaction, ...]:
        """Each rule with what it found, also if that is nothing: a pattern that never matched may be a typing error."""
        names = [SECRETS, *(rule.name for rule in self._patterns), *(name for name, _ in self._paths)]
        return tuple(
            Redaction(rule=name, replaced=self._replaced[name], runs=self._runs[name]) for name in dict.fromkeys(names)
        )

    def apply(self, run: RecordedRun) -> RecordedRun:
        """The run without what must not leave; the same object if nothing of it was there. Raises RecordingError."""
        return self.line(run)[0]

    def line(self, run: RecordedRun, value: bytes | None = None) -> tuple[RecordedRun, bytes]:
        """The same, and its bytes. `value`: those of the run as it is, where they were made already."""
        value = value or run.to_bytes()
        if not self._patterns and not self._paths and not self._holds_secret(run, value):
            return run, value
        clean = self._cleaned(run)
        # Made anew in any case: what was given may hold more than the run, fields that a newer version wrote.
        return clean, clean.to_bytes()

    def _cleaned(self, run: RecordedRun) -> RecordedRun:
        found: Counter[str] = Counter()
        document: Document = run.model_dump(mode="json")
        taken = self._take_paths(document, found)
        rules = [_Rule(SECRETS, self._redactor.pattern), *self._patterns, *taken]
        join_deltas(document, lambda text: _without(text, rules, found))
        clean = _walk(document, lambda text: _substituted(text, rules, found), free=False)
        if not found:
            return run
        assert isinstance(clean, dict)
        if any(found[name] for name, _ in self._paths):
            rewrite_arguments(clean)
        self._replaced.update(found)
        self._runs.update(dict.fromkeys(found, 1))
        try:
            return RecordedRun.model_validate(clean)
        except ValidationError as error:
            where = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise RecordingError(
                f"run {run.run_id}: a rule takes out `{where}`, without which it is no run: name a text, or a field of "
                "metadata, arguments or a tool's answer"
            ) from None

    def _holds_secret(self, run: RecordedRun, value: bytes) -> bool:
        if self._redactor.found_in(value.decode()):
            return True
        pieces: dict[tuple[str, int], list[str]] = {}
        for event in run.events:
            if isinstance(event, PartDelta):
                pieces.setdefault((event.message_id, event.part_index), []).append(event.delta)
        return any(self._redactor.found_in("".join(texts)) for texts in pieces.values())

    def _take_paths(self, document: Document, found: Counter[str]) -> list[_Rule]:
        taken: list[_Rule] = []
        for name, path in self._paths:
            texts: set[str] = set()
            for match in list(path.finditer(document)):
                if match.value in (None, REDACTED) or not match.parts:
                    continue
                texts.update(_texts(match.value))
                _put(document, match.parts, REDACTED)
                found[name] += 1
            if long := sorted((text for text in texts if len(text) >= MIN_VALUE), key=len, reverse=True):
                taken.append(_Rule(name, re.compile("|".join(map(re.escape, long)))))
        return taken


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RecordingError(f"--redact-pattern {pattern}: no regular expression ({error})") from None
    if compiled.match(""):
        raise RecordingError(f"--redact-pattern {pattern}: matches the empty text, and so everywhere")
    return compiled


def _path(path: str) -> jsonpath.JSONPath | jsonpath.CompoundJSONPath:
    try:
        return jsonpath.compile(path)
    except jsonpath.JSONPathError as error:
        raise RecordingError(f"--redact-path {path}: no JSONPath ({' '.join(str(error).split())})") from None


def _without(text: str, rules: Iterable[_Rule], found: Counter[str]) -> list[tuple[int, int]]:
    """The stretches of a text that must go, ascending and apart."""
    spans: list[tuple[int, int]] = []
    for rule in rules:
        for match in rule.pattern.finditer(text):
            if all(match.end() <= begin or match.start() >= end for begin, end in spans):
                spans.append(match.span())
                found[rule.name] += 1
    return sorted(span for span in spans if span[0] < span[1])


def _substituted(text: str, rules: Iterable[_Rule], found: Counter[str]) -> str:
    for rule in rules:
        text, count = rule.pattern.subn(REDACTED, text)
        if count:
            found[rule.name] += count
    return text


def _walk(value: JsonValue, clean: Callable[[str], str], *, free: bool) -> JsonValue:
    match value:
        case str():
            return clean(value)
        case list():
            return [_walk(item, clean, free=free) for item in value]
        case dict() if free:
            return {clean(name): _walk(item, clean, free=True) for name, item in value.items()}
        case dict():
            return {
                name: item if _stays(name, item) else _walk(item, clean, free=name in _FREE)
                for name, item in value.items()
            }
        case _:
            return value


def _stays(name: str, item: JsonValue) -> bool:
    # The pieces of parts were looked at before, each part as one text. A harness is a name in events; in parameters it
    # has options, and these are the caller's.
    return name in _KEPT or name == "delta" or (name == "harness" and isinstance(item, str))


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _put(document: Document, parts: Sequence[int | str], value: JsonValue) -> None:
    holder: JsonValue = document
    for step in parts[:-1]:
        holder = holder[step]  # type: ignore[index]  # the path led through this very document
    holder[parts[-1]] = value  # type: ignore[index]
