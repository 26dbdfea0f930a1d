"""What an agent runs with: a request's parameters over the worker's files over constants.

admit(request, config) -> EffectiveParameters | NotAdmitted
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self, TypeVar

from agentstream.consumers.agent_files import AGENT_JSON, AgentFiles, Finding
from agentstream.consumers.effective import EffectiveParameters
from agentstream.consumers.harness.port import Credentials, Harness, RunLimits
from agentstream.consumers.retries import RetryCeilings, RetryRules, retry_rules
from agentstream.schemas import defaults
from agentstream.schemas.errors import ErrorCode, Problem, Stage
from agentstream.schemas.headers import TRACE_TARGET
from agentstream.schemas.requests import (
    AgentParameters,
    HarnessChoice,
    InvokeRequest,
    Limits,
    Retry,
    StreamMode,
    Thinking,
)

T = TypeVar("T")
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
    retry: RetryCeilings = field(default_factory=RetryCeilings)
    """How long files and requests may have a run wait between attempts."""
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    """Credentials by name; their keys are secrets."""
    trace_targets: frozenset[str] = frozenset()
    """Names of places that a request may have its spans exported to."""
    files: AgentFiles = field(default_factory=AgentFiles)
    """AGENTS.md and agent.json as they were read at start."""
    unasked: "Unasked" = field(init=False, repr=False, compare=False)
    """What takes effect where a request does not say."""
    usual: "EffectiveParameters | NotAdmitted" = field(init=False, repr=False, compare=False)
    """What a request that asks for nothing runs with, or why it is refused: one object for all of them."""

    def __post_init__(self) -> None:
        """Raises ValueError for limits that cannot be written, and where no harness is allowed at all."""
        Limits(**asdict(self.limits))
        if not self.harnesses:
            raise ValueError("at least one harness must be allowed")
        object.__setattr__(self, "unasked", Unasked.of(self))
        object.__setattr__(self, "usual", _resolved(AgentParameters(), self))

    @property
    def fallback_harness(self) -> str:
        """`default_harness` if it is allowed, else the first that is."""
        return self.default_harness if self.default_harness in self.harnesses else next(iter(self.harnesses))


@dataclass(frozen=True, kw_only=True, slots=True)
class Unasked:
    """What takes effect where a request does not say: the worker's files, as its settings allow, over constants.

    Worked out once for a worker, and the same for all its requests.
    """

    model: str | None
    """`provider/id`; None: nobody named one."""
    agents_md: str
    """The instructions."""
    choice: HarnessChoice | None
    """The files' harness, where it can be used; None: the worker's, without options."""
    tools: tuple[str, ...]
    """The tools."""
    limits: RunLimits
    """The bounds; a request can only lower them."""
    retry: RetryRules
    """The waits between attempts."""
    thinking: Thinking
    """How hard the model is to think."""
    stream: StreamMode
    """Which events are published."""

    @classmethod
    def of(cls, config: WorkerAgentConfig) -> Self:
        """What these settings and files say."""
        files = config.files.parameters
        tools = _first(files.tools, defaults.TOOLS)
        usable = files.harness is not None and _unusable_choice(files.harness, config) is None
        return cls(
            model=files.model or config.default_model,
            agents_md=_first(config.files.agents_md, defaults.AGENTS_MD),
            choice=files.harness if usable else None,
            tools=tuple(dict.fromkeys(tool for tool in tools if tool in config.tools)),
            limits=_lowest(config.limits, files.limits),
            retry=retry_rules(config.retry, files.retry),
            thinking=_first(files.thinking, defaults.THINKING),
            stream=_first(files.stream, defaults.STREAM),
        )


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
    if request.resume is not None:
        return NotAdmitted(problem=_problem(ErrorCode.UNSUPPORTED, "`resume` is reserved"))
    asked = request.parameters
    return _resolved(asked, config) if asked.model_fields_set else config.usual


def _resolved(asked: AgentParameters, config: WorkerAgentConfig) -> EffectiveParameters | NotAdmitted:
    unasked = config.unasked
    choice = asked.harness or unasked.choice or HarnessChoice(kind=config.fallback_harness)
    tools = unasked.tools if asked.tools is None else tuple(dict.fromkeys(asked.tools))
    problem = _refused(choice, tools, config)
    if problem is not None:
        return NotAdmitted(problem=problem)
    model = asked.model or unasked.model
    credentials, missing = credentials_for(asked.credentials, model, config)
    return EffectiveParameters(
        model=model,
        agents_md=unasked.agents_md if asked.agents_md is None else asked.agents_md,
        choice=choice,
        tools=tools,
        limits=_lowest(unasked.limits, asked.limits),
        retry=_retry_rules(config, asked.retry),
        thinking=asked.thinking or unasked.thinking,
        stream=asked.stream or unasked.stream,
        credentials=credentials,
        problem=missing,
    )


def refused_target(target: str | None, config: WorkerAgentConfig) -> NotAdmitted | None:
    """Why a request is refused that names this place for its spans. Those of a name that is mistyped would else go
    where those of everybody go."""
    if target is None or target in config.trace_targets:
        return None
    return NotAdmitted(problem=_problem(ErrorCode.UNSUPPORTED, f"{TRACE_TARGET}: this worker has no `{target[:64]}`"))


def findings(config: WorkerAgentConfig) -> tuple[Finding, ...]:
    """What in the worker's files cannot be used, or not with these settings. For `doctor` and the log at start."""

    def found(field: str, problem: str, took_effect: str) -> Finding:
        return Finding(file=AGENT_JSON, field=field, problem=problem, took_effect=took_effect)

    files = config.files.parameters
    more: list[Finding] = []
    if files.harness is not None and (why := _unusable_choice(files.harness, config)) is not None:
        more.append(found("harness", why, f"`{config.fallback_harness}` takes effect"))
    refused = [tool for tool in files.tools or () if tool not in config.tools]
    if refused:
        more.append(found("tools", f"not allowed by the settings: {', '.join(refused)}", "they are left out"))
    if files.credentials is not None and files.credentials not in config.credentials:
        more.append(found("credentials", "not in the settings", "those of the model's provider take effect"))
    for name, ceiling in asdict(config.limits).items():
        if (wanted := getattr(files.limits, name, None)) is not None and wanted > ceiling:
            more.append(
                found(f"limits.{name}", f"{wanted} is above the settings' {ceiling}", f"{ceiling} takes effect")
            )
    return (*config.files.findings, *more)


def _refused(choice: HarnessChoice, tools: tuple[str, ...], config: WorkerAgentConfig) -> Problem | None:
    if choice.kind not in config.harnesses:
        known = choice.kind in KNOWN_HARNESSES
        code = ErrorCode.HARNESS_NOT_ALLOWED if known else ErrorCode.UNKNOWN_HARNESS
        return _problem(code, f"`{choice.kind}`; allowed here: {', '.join(config.harnesses) or 'none'}")
    if (why := config.harnesses[choice.kind].check_options(choice.options)) is not None:
        return _problem(ErrorCode.SCHEMA_INVALID, f"parameters.harness.options: {why}")
    refused = [tool for tool in tools if tool not in config.tools]
    if refused:
        allowed = ", ".join(sorted(config.tools)) or "none"
        return _problem(ErrorCode.TOOL_NOT_ALLOWED, f"{', '.join(refused)}; allowed here: {allowed}")
    return None


def _problem(code: ErrorCode, detail: str) -> Problem:
    return Problem.of(code, detail, stage=Stage.ADMIT)


def _unusable_choice(choice: HarnessChoice, config: WorkerAgentConfig) -> str | None:
    if choice.kind not in config.harnesses:
        return f"`{choice.kind}` is not allowed by the settings"
    return config.harnesses[choice.kind].check_options(choice.options)


def default_tools(config: WorkerAgentConfig) -> tuple[str, ...]:
    """What a request that names no tools gets."""
    return config.unasked.tools


def credentials_for(
    name: str | None, model: str | None, config: WorkerAgentConfig
) -> tuple[Credentials | None, Problem | None]:
    """The credentials for the run, and why it must fail where the caller asked for some that do not fit."""
    provider = None if model is None else model.partition("/")[0]
    if name is not None:
        asked = config.credentials.get(name)
        if asked is None:
            return None, Problem.of(ErrorCode.PROVIDER_AUTH, f"this worker has no credentials named `{name}`")
        # With an endpoint of its own (a gateway) the key goes there, whatever the model is called. Without, it would go
        # to another provider than the one it is for.
        if provider is not None and asked.provider != provider and asked.base_url is None:
            return None, Problem.of(
                ErrorCode.PROVIDER_AUTH, f"credentials `{name}` are for {asked.provider}, the model is {model}"
            )
        return asked, None
    if not config.credentials:
        return None, None
    preferred = config.credentials.get(config.files.parameters.credentials or "")
    candidates = [*([preferred] if preferred else []), *config.credentials.values()]
    # None at all is the harness's business: it knows whether it needs any.
    return next((each for each in candidates if each.provider == provider), None), None


def _lowest(ceiling: RunLimits, asked: Limits | None) -> RunLimits:
    if asked is None:
        return ceiling
    lower: dict[str, int] = {}
    for name in defaults.LIMITS:
        wanted: int | None = getattr(asked, name)
        if wanted is not None and wanted < getattr(ceiling, name):
            lower[name] = wanted
    return replace(ceiling, **lower) if lower else ceiling


def _retry_rules(config: WorkerAgentConfig, asked: Retry | None) -> RetryRules:
    return config.unasked.retry if asked is None else retry_rules(config.retry, asked, config.files.parameters.retry)


def _first(*values: T | None) -> T:
    """The first that is given; an empty one is given, too."""
    return next(value for value in values if value is not None)
