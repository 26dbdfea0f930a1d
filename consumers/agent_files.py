"""The worker's files: AGENTS.md (instructions) and agent.json (parameters), read once at start.

Nothing here breaks a request: what cannot be used is a finding, and that field falls back.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue, ValidationError

from agentstream.schemas.requests import AgentParameters, Limits

AGENTS_MD: Final = "AGENTS.md"
AGENT_JSON: Final = "agent.json"
MAX_AGENTS_MD_BYTES: Final = 262_144
MAX_AGENT_JSON_BYTES: Final = 1_048_576
NAME: Final = "name"
MAX_NAME: Final = 128
"""Characters: it is part of a span's name."""
REMARKS: Final = frozenset({"$schema", "$comment"})
"""JSON has no comments: these two, as JSON Schema calls them, are for whoever reads the file."""
_FIELDS: Final = frozenset(AgentParameters.model_fields) - {"agents_md"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something in a file that could not be used."""

    file: str
    """`AGENTS.md` or `agent.json`."""
    field: str | None
    """The field, dotted, such as `limits.total_ms`; None for the whole file."""
    problem: str
    """What is wrong."""
    took_effect: str
    """What takes effect instead."""

    def __str__(self) -> str:
        where = self.file if self.field is None else f"{self.file}: {self.field}"
        return f"{where}: {self.problem}; {self.took_effect}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFiles:
    """The files as far as they could be used."""

    agents_md: str | None = None
    """Text of AGENTS.md; None: no such file."""
    parameters: AgentParameters = field(default_factory=AgentParameters)
    """The fields of agent.json that could be used."""
    name: str | None = None
    """What agent.json calls the agent; for its spans."""
    findings: tuple[Finding, ...] = ()
    """What could not; for `doctor` and the log at start."""


def read_agent_files(directory: Path | None) -> AgentFiles:
    """Read AGENTS.md and agent.json of this very directory, no parent and no home. None: no files. Never raises."""
    if directory is None:
        return AgentFiles()
    findings: list[Finding] = []
    agents_md = _read(directory, AGENTS_MD, MAX_AGENTS_MD_BYTES, findings)
    text = _read(directory, AGENT_JSON, MAX_AGENT_JSON_BYTES, findings)
    parameters, name = (AgentParameters(), None) if text is None else _parse(text, findings)
    return AgentFiles(agents_md=agents_md, parameters=parameters, name=name, findings=tuple(findings))


def _read(directory: Path, name: str, limit: int, findings: list[Finding]) -> str | None:
    path = directory / name
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(0, "it is no regular file")  # opening a FIFO would wait for ever
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) <= limit:
            return raw.decode("utf-8-sig")
        problem = f"larger than {limit} bytes"
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    findings.append(Finding(file=name, field=None, problem=problem, took_effect="the file is left out"))
    return None


def _parse(text: str, findings: list[Finding]) -> tuple[AgentParameters, str | None]:
    def whole(problem: str) -> tuple[AgentParameters, None]:
        findings.append(Finding(file=AGENT_JSON, field=None, problem=problem, took_effect="the defaults take effect"))
        return AgentParameters(), None

    try:
        data: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        # RecursionError: 100,000 opening brackets; ValueError also covers an integer of 10,000 digits.
        return whole(f"not JSON: {error}")
    if not isinstance(data, dict):
        return whole(f"must be an object, not {_kind(data)}")
    called = _name(data.pop(NAME, None), findings)
    usable = {name: value for name, value in data.items() if _is_usable(name, value, findings)}
    if isinstance(limits := data.get("limits"), dict):
        usable["limits"] = {name: value for name, value in limits.items() if _is_usable_limit(name, value, findings)}
    return AgentParameters.model_validate(usable), called


def _name(value: JsonValue, findings: list[Finding]) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()):
        return value
    problem = f"must be a line of 1 to {MAX_NAME} characters"
    took_effect = "the harness's kind takes effect"
    findings.append(Finding(file=AGENT_JSON, field=NAME, problem=problem, took_effect=took_effect))
    return None


def _is_usable(name: str, value: JsonValue, findings: list[Finding]) -> bool:
    if name in REMARKS or (name == "limits" and isinstance(value, dict)):
        return False  # limits: field by field, below
    if name not in _FIELDS:
        hint = f"put it into {AGENTS_MD}" if name == "agents_md" else "no such field"
        findings.append(Finding(file=AGENT_JSON, field=name, problem=hint, took_effect="it is left out"))
        return False
    try:
        AgentParameters.model_validate({name: value})
    except ValidationError as error:
        took_effect = "no tools" if name == "tools" else "the default takes effect"
        findings.append(Finding(file=AGENT_JSON, field=name, problem=_said(error), took_effect=took_effect))
        return False
    return value is not None


def _is_usable_limit(name: str, value: JsonValue, findings: list[Finding]) -> bool:
    field = f"limits.{name}"
    if name in REMARKS:
        return False
    if name not in Limits.model_fields:
        findings.append(Finding(file=AGENT_JSON, field=field, problem="no such field", took_effect="it is left out"))
        return False
    try:
        Limits.model_validate({name: value})
    except ValidationError as error:
        took_effect = "the default takes effect"
        findings.append(Finding(file=AGENT_JSON, field=field, problem=_said(error), took_effect=took_effect))
        return False
    return value is not None


def _said(error: ValidationError) -> str:
    """The first error in one line, without the value: it may be a key pasted into the wrong place."""
    first = error.errors(include_url=False, include_input=False)[0]
    inside = ".".join(str(step) for step in first["loc"][1:])
    return f"{inside}: {first['msg']}" if inside else first["msg"]


def _kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "a boolean"
        case _:
            return "a number"
