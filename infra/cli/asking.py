"""What `invoke`, `chat` and `replay` are told of a request on the command line, and what becomes of it."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.client.checking import unknown_parameter
from agentstream.consumers.client.requests import RequestOptions
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.schemas.topics import MAX_REQUEST_BYTES

MOST_BYTES: Final = 64 * MAX_REQUEST_BYTES
"""What the settings can allow a request at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What stands on the command line."""

    text: str
    """The question; `-` for stdin."""
    session: str | None
    """The session."""
    model: str | None
    """`provider/id`."""
    agents_md: Path | None
    """A file with instructions."""
    harness: str | None
    """The harness."""
    assignments: tuple[str, ...]
    """`name=value`, each a parameter or `metadata.name`."""
    continued: str | None = None
    """The session whose history is sent along."""


def request_options(asked: Asked) -> RequestOptions:
    """Options of the command line as those of a request. Fails for an assignment that is none."""
    parameters, metadata = _assigned(asked.assignments)
    if asked.model is not None:
        if not all(asked.model.partition("/")):
            fail(f"--model {asked.model}: write it as provider/id, such as openai/gpt-5-mini", USAGE)
        parameters["model"] = asked.model
    if asked.harness is not None:
        _assign(parameters, "harness.kind", asked.harness)
    if asked.agents_md is not None:
        parameters["agents_md"] = _file(asked.agents_md)
    options: RequestOptions = {"parameters": parameters}
    if metadata:
        options["metadata"] = metadata
    if asked.session is not None:
        options["session_id"] = asked.session
    return options


def _assigned(assignments: Iterable[str]) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """Parameters and metadata that `--set` gives."""
    parameters: dict[str, JsonValue] = {}
    metadata: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            fail(f"--set {assignment}: write it as name=value, such as --set limits.max_turns=3", USAGE)
        if name.startswith("metadata."):
            metadata[name.removeprefix("metadata.")] = text
        else:
            _assign(parameters, name, _value(name, text))
    if unknown := unknown_parameter(parameters):
        fail(f"--set {unknown}", USAGE)
    return parameters, metadata


def said_on_stdin() -> str:
    """All of stdin as text. Fails for what is not UTF-8, or larger than any request."""
    raw = bounded(sys.stdin.buffer.read(MOST_BYTES + 1), "stdin")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return fail(f"stdin is not UTF-8 text (at byte {error.start})", USAGE)


def bounded(raw: bytes, where: str) -> bytes:
    """What came of asking for `MOST_BYTES + 1`. Fails for more: `chat < /dev/zero` took a gigabyte a second."""
    if len(raw) > MOST_BYTES:
        fail(f"{where} has more than {MOST_BYTES} bytes, and no request may", USAGE)
    return raw


def said_as_argument(text: str) -> str:
    """An argument as text, whatever the locale. Fails for what is not UTF-8: the agent was asked with parts missing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode()
        except UnicodeDecodeError as error:
            return fail(f"the message is not UTF-8 text (at byte {error.start})", USAGE)
    return text


def _file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return bounded(file.read(MOST_BYTES + 1), f"--agents-md {path}").decode("utf-8-sig")
    except OSError as error:
        return fail(f"--agents-md {path}: {error.strerror}", USAGE)
    except UnicodeDecodeError as error:
        return fail(f"--agents-md {path}: not UTF-8 text (at byte {error.start})", USAGE)


def _assign(parameters: dict[str, JsonValue], name: str, value: JsonValue) -> None:
    *path, last = name.split(".")
    place = parameters
    for step in path:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            fail(f"--set {name}: {step} is set to something else already", USAGE)
        place = inner
    place[last] = value


def _value(name: str, text: str) -> JsonValue:
    """JSON where it is JSON, else the text itself; a list of tools may be written with commas."""
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        value = text
    if name == "tools" and isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value
