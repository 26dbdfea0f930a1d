"""Instructions that callers put on topics: `InvokeRequest` and `CancelRun`."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from agentstream.schemas.base import Instant, Int, Metadata, RunId, SessionId, WireModel
from agentstream.schemas.messages import Message

Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh"]
StreamMode = Literal["full", "events", "none"]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,64}/\S{1,192}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

MAX_MESSAGES = 10_000
MAX_TOOLS = 64
DAY_MS = 24 * 3_600_000


class HarnessChoice(WireModel):
    """Which harness runs the agent, and how."""

    kind: Name = Field(description="The harness, one of those the worker allows: `pi`, `scripted`, …")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Options of that harness.")


class Limits(WireModel):
    """Bounds of one run. A request can only lower what the worker's settings say."""

    total_ms: Int | None = Field(default=None, ge=1, le=7 * DAY_MS, description="From start to result, milliseconds.")
    first_event_ms: Int | None = Field(default=None, ge=1, le=DAY_MS, description="Until the agent's first event, ms.")
    idle_ms: Int | None = Field(default=None, ge=1, le=DAY_MS, description="Between two events outside a tool, ms.")
    tool_ms: Int | None = Field(default=None, ge=1, le=DAY_MS, description="For one tool call, milliseconds.")
    max_turns: Int | None = Field(default=None, ge=1, le=10_000, description="Model calls in one attempt.")
    max_output_bytes: Int | None = Field(default=None, ge=1, description="Bytes of text, reasoning and tool content.")
    max_attempts: Int | None = Field(default=None, ge=1, le=20, description="Attempts within one claim.")


class Retry(WireModel):
    """How long a run waits before it is tried again. How often and how long at all: `limits`."""

    base_ms: Int | None = Field(
        default=None, ge=0, le=DAY_MS, description="Bound of the first wait, ms; it doubles with each attempt."
    )
    cap_ms: Int | None = Field(default=None, ge=0, le=DAY_MS, description="The bound never grows beyond this, ms.")
    retry_after_ms: Int | None = Field(
        default=None, ge=0, le=DAY_MS, description="A provider's Retry-After is honoured up to this, ms."
    )


class AgentParameters(WireModel):
    """How the agent is to run. What is absent comes from the worker's files, then from its constants."""

    model: ModelName | None = Field(default=None, description="`provider/id`.")
    agents_md: str | None = Field(
        default=None, max_length=262_144, description="Instructions: the text of an AGENTS.md."
    )
    harness: HarnessChoice | None = Field(default=None, description="Which harness runs the agent.")
    tools: tuple[ToolName, ...] | None = Field(
        default=None, max_length=MAX_TOOLS, description="Tools the agent may use, each allowed by the worker."
    )
    limits: Limits | None = Field(default=None, description="Bounds of the run.")
    retry: Retry | None = Field(default=None, description="Waits between attempts, within the worker's ceilings.")
    thinking: Thinking | None = Field(default=None, description="How hard the model is to think.")
    stream: StreamMode | None = Field(
        default=None, description="full: everything; events: no part.delta; none: only run.started, retrying, ended."
    )
    credentials: Name | None = Field(default=None, description="The *name* of credentials in the worker's settings.")


class InvokeRequest(WireModel):
    """Run the agent on this conversation."""

    id: RunId | None = Field(default=None, description="The run id, used once; absent: `ce_id`, else made of position.")
    session_id: SessionId | None = Field(default=None, description="The ordering key; absent: the record's key.")
    messages: tuple[Message, ...] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="History and the new turn; the last is from `user` or `tool`.",
    )
    parameters: AgentParameters = Field(default_factory=AgentParameters, description="How the agent is to run.")
    deadline: Instant | None = Field(
        default=None, description="RFC 3339 instant with offset; not started by then: failed."
    )
    ttl_ms: Int | None = Field(
        default=None, ge=1, le=30 * DAY_MS, description="Deadline as ms after the record's time."
    )
    parent_run_id: RunId | None = Field(default=None, description="The run that this one belongs to.")
    resume: JsonValue | None = Field(default=None, description="Reserved: the answer to a paused run.")
    metadata: Metadata = Field(default_factory=dict, description="A flat map of strings, copied to the result.")

    @model_validator(mode="after")
    def _last_message_is_the_callers(self) -> Self:
        if self.messages[-1].role not in ("user", "tool"):
            raise ValueError("messages: the last message must be from `user` or `tool`")
        return self


class CancelRun(WireModel):
    """End a run as cancelled, whether it waits or runs."""

    run_id: RunId = Field(description="The run to cancel.")
    reason: str | None = Field(default=None, max_length=500, description="Why, for the result.")
    requested_by: str | None = Field(default=None, max_length=256, description="Who asked, for the result.")
