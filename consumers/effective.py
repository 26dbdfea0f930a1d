"""The parameters as they take effect for one run, and as its result repeats them."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Final

from agentstream.consumers.harness.port import Credentials, RunLimits
from agentstream.consumers.retries import RetryRules
from agentstream.schemas.base import unchecked
from agentstream.schemas.errors import Problem
from agentstream.schemas.requests import AgentParameters, HarnessChoice, Limits, StreamMode, Thinking

MAX_ECHO_BYTES: Final = 4_096
"""Results repeat the parameters; 256 KiB of instructions in each would cost more than the answers."""

_parameters = unchecked(AgentParameters)


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
    retry: RetryRules = field(default_factory=RetryRules)
    """The waits between attempts."""
    credentials: Credentials | None = None
    """The provider's credentials, where the worker has some."""
    problem: Problem | None = None
    """Why the run fails before it starts (credentials that are missing): `Runs.execute` makes a failed result of it."""
    _wire: AgentParameters | None = field(default=None, init=False, repr=False, compare=False)

    def to_wire(self) -> AgentParameters:
        """The parameters for the result. What is longer than 4 KiB is cut, with its size and SHA-256."""
        wire = self._wire
        if wire is None:
            # Once: all runs whose requests ask for nothing share these parameters.
            wire = self._as_echoed()
            object.__setattr__(self, "_wire", wire)
        return wire

    def _as_echoed(self) -> AgentParameters:
        return _parameters(
            model=self.model,
            agents_md=_short_text(self.agents_md),
            harness=_short_choice(self.choice),
            tools=self.tools,
            limits=_wire_limits(self.limits),
            retry=self.retry.to_wire(),
            thinking=self.thinking,
            stream=self.stream,
            credentials=None if self.credentials is None else self.credentials.name,
        )


def _short_text(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MAX_ECHO_BYTES:
        return text
    return raw[: MAX_ECHO_BYTES - 128].decode("utf-8", "ignore") + f"\n[cut: {_digest(raw)}]"


@lru_cache(maxsize=1_024)
def _wire_limits(limits: RunLimits) -> Limits:
    """As a rule all runs of a worker have the same."""
    return Limits(**asdict(limits))


def _short_choice(choice: HarnessChoice) -> HarnessChoice:
    # No character of a repr takes more than four bytes as JSON, and a repr costs a fifth of it.
    if 4 * len(repr(choice.options)) <= MAX_ECHO_BYTES:
        return choice
    raw = json.dumps(choice.options, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
    if len(raw) <= MAX_ECHO_BYTES:
        return choice
    return HarnessChoice(kind=choice.kind, options={"cut": _digest(raw)})


def _digest(raw: bytes) -> str:
    return f"{len(raw)} bytes, sha256:{hashlib.sha256(raw).hexdigest()}"
