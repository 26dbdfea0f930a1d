"""What an agent runs with: a request's parameters over the worker's files over constants.

    admit(request, config) -> EffectiveParameters | NotAdmitted
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentstream.consumers.agent_files import AgentFiles
from agentstream.consumers.harness.port import Credentials, Harness, RunLimits
from agentstream.schemas import defaults
from agentstream.schemas.errors import Problem
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest, StreamMode, Thinking

KNOWN_HARNESSES = frozenset({"pi", "pi-http", "scripted"})
"""Harnesses that exist, whether or not a worker allows them."""
DEFAULT_LIMITS = RunLimits(**defaults.LIMITS)
"""The constants as a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerAgentConfig:
    """What a worker allows and what it falls back to. Built once by the composition root."""

    harnesses: Mapping[str, Harness]
    """The harnesses that requests may ask for, by kind."""
    default_harness: str = defaults.HARNESS
    """The harness where neither request nor files name one."""
    default_model: str | None = None
    """`provider/id` where neither request nor files name a model; None: the harness decides or fails."""
    tools: frozenset[str] = frozenset()
    """Tools that requests may ask for."""
    limits: RunLimits = DEFAULT_LIMITS
    """The worker's bounds: files and requests can only lower them."""
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    """Credentials by name; their keys are secrets."""
    files: AgentFiles = AgentFiles()
    """AGENTS.md and agent.json as they were read at start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectiveParameters:
    """The parameters as they take effect for one run."""

    model: str | None
    """`provider/id`, or None where nobody named one."""
    agents_md: str
    """The instructions; may be empty."""
    choice: HarnessChoice
    """The harness and its options, which it has accepted."""
    tools: tuple[str, ...]
    """The tools allowed, maybe none."""
    limits: RunLimits
    """The bounds."""
    thinking: Thinking
    """How hard the model is to think."""
    stream: StreamMode
    """Which events are published."""
    credentials: Credentials | None = None
    """The provider's credentials, where the worker has some."""
    problem: Problem | None = None
    """Why the run fails before it starts (credentials that are missing): `Runs.execute` makes a failed result of it."""

    def to_wire(self) -> AgentParameters:
        """The parameters for the result. Large texts are cut, see `MAX_ECHO_BYTES`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class NotAdmitted:
    """This worker refuses the request: it goes to the dead letters under the problem's code."""

    problem: Problem
    """What is refused, at stage `admit`."""


def admit(request: InvokeRequest, config: WorkerAgentConfig) -> EffectiveParameters | NotAdmitted:
    """Resolve what the request runs with, or say why it is refused. Total: never raises for what a request holds.

    Refused: `resume` (unsupported), a harness that does not exist or is not allowed, harness options that the harness
    does not take (schema_invalid), a tool that is not allowed. Credentials that the worker has not are no refusal but
    a failed run: they come back as `EffectiveParameters.problem`.
    """
    raise NotImplementedError
