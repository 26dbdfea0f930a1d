"""The harness port: what an adapter gets, what it yields, what it promises.

Harness.run(HarnessRequest) -> HarnessEvent | Waiting …, one Finished | Failed
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Cost, FinishReason, Message
from agentstream.schemas.requests import HarnessChoice, Thinking
from agentstream.schemas.trace import TraceContext


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """The bounds that took effect. Numbers, never "none"."""

    total_ms: int
    """From the run's start to its result, all attempts together."""
    first_event_ms: int
    """Until an attempt's first event."""
    idle_ms: int
    """Between two events while no tool runs."""
    tool_ms: int
    """For one tool call."""
    max_turns: int
    """Model calls in one attempt; the harness keeps it and fails with `max_turns`."""
    max_output_bytes: int
    """Bytes of text, reasoning and tool content of one attempt."""
    max_attempts: int
    """Attempts within one claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """How to reach a provider; from the worker's settings, never from a request, and never logged."""

    name: str
    """The name under which requests ask for it."""
    provider: str
    """The provider it is for: the first part of `provider/id`."""
    api_key: str = field(repr=False)
    """The key; a secret."""
    base_url: str | None = None
    """An OpenAI- or Anthropic-compatible endpoint; None: the provider's own."""
    api: str | None = None
    """The endpoint's dialect, such as `openai-completions` or `anthropic-messages`; None: what the model needs."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Additional headers for each call; may hold secrets."""
    input_price: str | None = None
    """USD per million input tokens as text; None: unknown, then no cost is reported unless the harness knows it."""
    output_price: str | None = None
    """USD per million output tokens as text; None: unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolAnswer:
    """What is said in place of a tool."""

    content: JsonValue
    """What the model reads; text, or JSON."""
    is_error: bool = False
    """Whether the tool is said to have failed."""


AnswerTool = Callable[[str, JsonValue], Awaitable[ToolAnswer | None]]
"""Is asked with name and arguments before any tool runs: its answer is the tool's, None lets the tool run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessRequest:
    """One attempt to run the agent. All choices are made: nothing is left to defaults."""

    run_id: str
    """The run."""
    session_id: str
    """The run's session."""
    attempt: int
    """Which attempt within the claim, from 1."""
    attempt_id: str
    """The attempt's uuid7: unique in the world, fit to mark processes with."""
    messages: tuple[Message, ...]
    """History and the new turn; the last one is from `user` or `tool`."""
    model: str | None
    """`provider/id`, or None where the harness needs none."""
    agents_md: str
    """The instructions; may be empty."""
    tools: tuple[str, ...]
    """The tools allowed, maybe none."""
    choice: HarnessChoice
    """The harness and its options."""
    thinking: Thinking
    """How hard the model is to think."""
    limits: RunLimits
    """The bounds that took effect."""
    credentials: Credentials | None
    """The provider's credentials, where the run needs some and the worker has them."""
    trace: TraceContext
    """The attempt's span: parent of every model call, and each of those has the id of its own that
    `consumers.tracing.ids` derives."""
    answer_tool: AnswerTool | None = None
    """Answers each tool call instead of the tool, or lets it run: a replay's. None: tools run."""
    apart: bool = False
    """The process of an earlier attempt died: run this one in a process with no other run, where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The agent came to its end."""

    finish_reason: FinishReason
    """Why the model stopped last."""
    cost: Cost | None = None
    """What it cost, where known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The agent failed; whether to try again is the code's line in the table."""

    code: ErrorCode
    """From the one table of codes."""
    detail: str
    """One line for the client: no stack trace, no secret, no machine path."""
    retriable: bool | None = None
    """Overrides the table where the adapter knows better; None: as the table says."""
    retry_after_ms: int | None = None
    """The provider's Retry-After."""
    cost: Cost | None = None
    """What it cost until then, where known."""
    lost_with_others: bool = False
    """The process that hosted this run died while others ran in it: nobody knows whose fault it was."""


HarnessEvent = (
    TurnStarted
    | TurnEnded
    | MessageStarted
    | MessageEnded
    | PartStarted
    | PartDelta
    | PartEnded
    | ToolStarted
    | ToolProgressed
    | ToolEnded
)
Terminal = Finished | Failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The harness has no room for the run yet. No event of the run: its limit on the first one begins anew.

    Only `apart` makes a run wait. The total time is its bound.
    """


class Harness(Protocol):
    """Runs an agent. Opened and closed by the composition root with `async with`; used by many runs at once.

    `run` yields unnumbered events and ends with exactly one terminal one, the last thing it yields. Its guarantees:

    - It never raises for an agent's failure: that is a `Failed`. It raises only for a bug, or CancelledError.
    - Cancelled (its task, or `aclose()` of the iterator), it ends within two seconds and leaves no process behind.
    - Every message that the agent adds is a `MessageEnded`, tool responses (role `tool`) included, in order.
    - Turns count from 1, and every event between TurnStarted and TurnEnded carries its turn.
    - While a run has to wait for room it says so, with `Waiting` at least every second.
    - It needs no Kafka.
    """

    @property
    def kind(self) -> str:
        """The name requests ask for: `pi`, `scripted`, …"""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the harness and what it stands on, once it is open."""
        ...

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """None if a run may be started with these options, else one line for the caller that says what is wrong.

        Asked at admission, before any run, and once for all requests that name none: a request with bad options is a
        dead letter. Must not raise or wait, nor look at anything else.
        """
        ...

    def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        """Run the agent once. See the class for what is guaranteed."""
        ...

    async def health(self) -> str | None:
        """None if a run could start now, else one line that says what is wrong and what to do."""
        ...
