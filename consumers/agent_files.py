"""The worker's files: AGENTS.md (instructions) and agent.json (parameters), read once at start.

Nothing here breaks a request: what cannot be used is a finding, and the field falls back.
"""

from dataclasses import dataclass
from pathlib import Path

from agentstream.schemas.requests import AgentParameters


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFiles:
    """The files as far as they could be used."""

    agents_md: str | None = None
    """Text of AGENTS.md; None: no such file."""
    parameters: AgentParameters = AgentParameters()
    """The fields of agent.json that could be used."""
    findings: tuple[Finding, ...] = ()
    """What could not; for `doctor` and the log at start."""


def read_agent_files(directory: Path | None) -> AgentFiles:
    """Read AGENTS.md and agent.json of this very directory, no parent and no home. None: no files. Never raises."""
    raise NotImplementedError
