"""What the offline model is asked, and what it decides to do: plain values, no I/O.

Conversation -> directives or plain sentences -> Plan -> Reply for the step that is due
"""

from dataclasses import dataclass, replace

from pydantic import JsonValue

JsonObject = dict[str, JsonValue]
DEFAULT_MESSAGE = "the script asked for this failure"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of the conversation."""

    role: str
    """system, developer, user, assistant or tool."""
    text: str
    """Its text parts, joined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """What the request holds, as far as a script can use it."""

    model: str
    """The model that was asked for."""
    system: str
    """All instructions, joined."""
    turns: tuple[Turn, ...]
    """Everything else, in order."""
    tools: frozenset[str]
    """Names of the tools that may be called."""

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def since_prompt(self) -> tuple[Turn, ...]:
        """What was said after it: the steps already taken."""
        last = max((index for index, turn in enumerate(self.turns) if turn.role == "user"), default=-1)
        return self.turns[last + 1 :]

    @property
    def steps_taken(self) -> int:
        """How often the model has answered this prompt."""
        return sum(turn.role == "assistant" for turn in self.since_prompt)

    @property
    def tool_outputs(self) -> tuple[str, ...]:
        """What the tools answered to this prompt."""
        return tuple(turn.text for turn in self.since_prompt if turn.role == "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A wish to have a tool called."""

    name: str
    """The tool."""
    arguments: JsonObject
    """Its arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What goes wrong with the call."""

    kind: str
    """An HTTP status, or one of: refuse, hang, stall, cut."""
    retry_after: str | None = None
    """The Retry-After header, seconds or a date."""
    times: int | None = None
    """Only the first so many calls with this prompt and key fail; None: all do."""
    message: str = DEFAULT_MESSAGE
    """What the body says."""

    @property
    def status(self) -> int | None:
        """The HTTP status, if it is one."""
        return int(self.kind) if self.kind.isdigit() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One answer of the model."""

    text: str = ""
    """Streamed word by word."""
    reasoning: str = ""
    """Streamed before the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Called when the text has been said."""
    finish_reason: str | None = None
    """None: tool_calls or stop, as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the reply says it used."""

    prompt: int
    """Tokens read, cached ones included."""
    completion: int
    """Tokens written."""
    cached: int = 0
    """Of those read, from a cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The whole script of one prompt."""

    steps: tuple[Reply, ...] = ()
    """One per model call; the last one is repeated."""
    fault: Fault | None = None
    """What goes wrong, if anything."""
    pace_ms: int = 0
    """Between two words."""
    tokens: Tokens | None = None
    """None: estimated from the lengths."""
    loop: bool = False
    """Begin again with the first step for ever."""

    def with_step(self, reply: Reply) -> "Plan":
        """The plan with one more step."""
        return replace(self, steps=(*self.steps, reply))

    def step(self, number: int) -> Reply:
        """The reply to the model call of this number, from 0."""
        return self.steps[number % len(self.steps) if self.loop else min(number, len(self.steps) - 1)]


OFFLINE_NOTE = "(This is agentstream's offline model: it follows a script, no provider was called.)"


def estimate_tokens(text: str) -> int:
    """About four characters to a token, as good as any estimate for a model that has none."""
    return max(1, len(text) // 4)
