"""Facts about a run, in past tense, as they stand on the delta topic.

Grouped by lifecycle: run, turn, message, part, tool. A harness yields them unnumbered (`seq` −1); the worker filters
and merges first and numbers after that, so that `seq` has no gaps within an attempt. Every `*.ended` carries the
complete value, so a reader may ignore every delta.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, JsonValue, SerializeAsAny, Tag

from agentstream.schemas.base import Flag, Instant, Int, RunId, SessionId, WireModel
from agentstream.schemas.errors import Problem
from agentstream.schemas.messages import FinishReason, Message, Part, Usage

UNNUMBERED = -1
EPOCH = datetime.fromtimestamp(0, UTC)
PartType = Literal["text", "reasoning", "tool_call"]
RunStatus = Literal["completed", "failed", "cancelled"]


class Event(WireModel):
    """What all events share."""

    seq: Int = Field(default=UNNUMBERED, description="Place within the attempt, from 0 without gaps.")
    time: Instant = Field(default=EPOCH, description="When it happened.")
    turn: Int = Field(default=0, ge=0, description="The turn it belongs to, from 1; 0 outside turns.")

    def numbered(self, seq: int, time: Instant) -> Self:
        """The same fact with its place and time."""
        # Called for every event of every run: `with_values` would take twice as long.
        given = self.__pydantic_fields_set__
        if "seq" not in given:
            given = {*given, "seq", "time"}
        values = self.__dict__.copy()
        values["seq"], values["time"] = seq, time
        return self._of_valid(values, given)


class RunStarted(Event):
    """An attempt at the run began."""

    type: Literal["run.started"] = Field(default="run.started", description="Names the kind of event.")
    model: str | None = Field(default=None, description="`provider/id` of the model.")
    harness: str = Field(description="The harness that runs it.")
    parent_run_id: RunId | None = Field(default=None, description="The run that this one belongs to.")


class RunQueued(Event):
    """The run waited over a second for its turn. Stands before `run.started`, once; ignore it to ignore waiting."""

    type: Literal["run.queued"] = Field(default="run.queued", description="Names the kind of event.")
    ahead: Int = Field(ge=0, description="Runs of its session before it; 0: it waits for a free slot.")


class RunAlive(Event):
    """Nothing else happened for ten seconds: slow and dead look different."""

    type: Literal["run.alive"] = Field(default="run.alive", description="Names the kind of event.")


class RunRetrying(Event):
    """This attempt's events are void; another attempt follows."""

    type: Literal["run.retrying"] = Field(default="run.retrying", description="Names the kind of event.")
    error: Problem | None = Field(default=None, description="Why; absent when the worker drains.")
    delay_ms: Int = Field(ge=0, description="The next attempt starts after this many milliseconds.")
    reason: Literal["error", "draining"] = Field(default="error", description="An error, or the worker shuts down.")


class RunEnded(Event):
    """The attempt ended, and with it the run."""

    type: Literal["run.ended"] = Field(default="run.ended", description="Names the kind of event.")
    status: RunStatus = Field(description="How it ended.")
    finish_reason: FinishReason | None = Field(default=None, description="Why the model stopped.")
    usage: tuple[Usage, ...] = Field(default=(), description="Tokens, per provider and model.")
    error: Problem | None = Field(default=None, description="What went wrong, unless completed.")


class TurnStarted(Event):
    """A model call, with the tools it will ask for, began."""

    type: Literal["turn.started"] = Field(default="turn.started", description="Names the kind of event.")


class TurnEnded(Event):
    """The model call and its tools ended."""

    type: Literal["turn.ended"] = Field(default="turn.ended", description="Names the kind of event.")
    finish_reason: FinishReason | None = Field(default=None, description="Why the model stopped.")
    usage: Usage | None = Field(default=None, description="Tokens of this turn.")


class MessageStarted(Event):
    """A message began to be written."""

    type: Literal["message.started"] = Field(default="message.started", description="Names the kind of event.")
    message_id: str = Field(description="Joins the events of one message.")
    role: Literal["assistant", "tool"] = Field(default="assistant", description="Who speaks.")


class MessageEnded(Event):
    """A message is complete. The result's messages are exactly these, in order."""

    type: Literal["message.ended"] = Field(default="message.ended", description="Names the kind of event.")
    message_id: str = Field(description="Joins the events of one message.")
    message: Message | None = Field(default=None, description="The complete message; absent only if truncated.")
    finish_reason: FinishReason | None = Field(default=None, description="Why the model stopped; absent for tools.")
    usage: Usage | None = Field(default=None, description="Tokens of this message; absent for tools.")
    truncated: Flag = Field(default=False, description="Too large for the delta topic: read it from the result.")


class PartStarted(Event):
    """A part of a message began."""

    type: Literal["part.started"] = Field(default="part.started", description="Names the kind of event.")
    message_id: str = Field(description="The message it belongs to.")
    part_index: Int = Field(ge=0, description="Place within the message, from 0.")
    part_type: PartType = Field(description="What kind of part.")


class PartDelta(Event):
    """A piece of a part, to be appended."""

    type: Literal["part.delta"] = Field(default="part.delta", description="Names the kind of event.")
    message_id: str = Field(description="The message it belongs to.")
    part_index: Int = Field(ge=0, description="Place within the message, from 0.")
    part_type: PartType = Field(description="What kind of part.")
    delta: str = Field(description="Text, or a piece of the arguments' JSON for a tool call.")


class PartEnded(Event):
    """A part is complete."""

    type: Literal["part.ended"] = Field(default="part.ended", description="Names the kind of event.")
    message_id: str = Field(description="The message it belongs to.")
    part_index: Int = Field(ge=0, description="Place within the message, from 0.")
    part_type: PartType = Field(description="What kind of part.")
    part: Part | None = Field(default=None, description="The complete part; absent only if truncated.")
    truncated: Flag = Field(default=False, description="Too large for the delta topic: read it from the result.")


class ToolStarted(Event):
    """A tool was called."""

    type: Literal["tool.started"] = Field(default="tool.started", description="Names the kind of event.")
    tool_call_id: str = Field(description="Joins the events of one call.")
    tool_name: str = Field(description="The tool.")
    arguments: JsonValue = Field(default=None, description="The arguments it was called with.")
    truncated: Flag = Field(default=False, description="The arguments were too large and are left out.")


class ToolProgressed(Event):
    """A running tool showed more of its output."""

    type: Literal["tool.progress"] = Field(default="tool.progress", description="Names the kind of event.")
    tool_call_id: str = Field(description="Joins the events of one call.")
    tool_name: str = Field(description="The tool.")
    content: str = Field(description="Output so far, or its newest part, as the tool gives it.")
    truncated: Flag = Field(default=False, description="Whether the content was cut.")


class ToolEnded(Event):
    """A tool call ended."""

    type: Literal["tool.ended"] = Field(default="tool.ended", description="Names the kind of event.")
    tool_call_id: str = Field(description="Joins the events of one call.")
    tool_name: str = Field(description="The tool.")
    content: JsonValue = Field(default=None, description="The output, cut if large.")
    is_error: Flag = Field(default=False, description="Whether the tool failed.")
    duration_ms: Int = Field(ge=0, description="How long the call took.")
    truncated: Flag = Field(default=False, description="Whether the content was cut.")


class InteractionRequested(Event):
    """Reserved for paused runs: the agent needs a person or a client-side tool."""

    type: Literal["interaction.requested"] = Field(
        default="interaction.requested", description="Names the kind of event."
    )
    interaction_id: str = Field(description="Joins the question with its answer.")


AnyEvent = Annotated[
    RunStarted
    | RunQueued
    | RunAlive
    | RunRetrying
    | RunEnded
    | TurnStarted
    | TurnEnded
    | MessageStarted
    | MessageEnded
    | PartStarted
    | PartDelta
    | PartEnded
    | ToolStarted
    | ToolProgressed
    | ToolEnded
    | InteractionRequested,
    Field(discriminator="type"),
]

EVENT_TYPES: Final = frozenset(
    {
        "run.started", "run.queued", "run.alive", "run.retrying", "run.ended", "turn.started", "turn.ended",
        "message.started", "message.ended", "part.started", "part.delta", "part.ended", "tool.started",
        "tool.progress", "tool.ended", "interaction.requested",
    }
)  # fmt: skip
"""Every type that this version knows: those of `AnyEvent` (tested)."""


class UnknownEvent(Event):
    """An event of a type that a newer minor version added. Readers ignore it; it is kept for its place in `seq`."""

    type: str = Field(description="The newer type's name.", json_schema_extra={"not": {"enum": [*sorted(EVENT_TYPES)]}})


def _known_or_unknown(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "unknown" if isinstance(kind, str) and kind not in EVENT_TYPES else "known"


ReadEvent = Annotated[
    Annotated[AnyEvent, Tag("known")] | Annotated[UnknownEvent, Tag("unknown")],
    Discriminator(_known_or_unknown),
    # Each is written as what it is. Else the discriminator is asked again for every event: half the price of a record.
    SerializeAsAny(),
]
"""What a reader may meet: writers only write `AnyEvent`."""


class StreamEvents(WireModel):
    """One record of the delta topic: one flush of one attempt. Its events' `seq` run from `first_seq` without gaps."""

    run_id: RunId = Field(description="The run.")
    session_id: SessionId = Field(description="The run's session.")
    claim: Int = Field(ge=0, description="Which ownership of the partition this is; only ever grows.")
    attempt: Int = Field(ge=1, description="Which attempt within the claim; `(claim, attempt)` orders all attempts.")
    attempt_id: str = Field(description="The attempt's uuid7.")
    first_seq: Int = Field(ge=0, description="`seq` of the first event here.")
    events: tuple[ReadEvent, ...] = Field(min_length=1, description="The events, in order.")

    @classmethod
    def of_numbered(  # noqa: PLR0913 - the fields
        cls,
        events: tuple[AnyEvent, ...],
        *,
        run_id: str,
        session_id: str,
        claim: int,
        attempt: int,
        attempt_id: str,
        first_seq: int,
    ) -> Self:
        """Of the events that a worker numbered, at least one. Checks nothing: that each is valid, the worker saw to."""
        values: dict[str, object] = {
            "run_id": run_id,
            "session_id": session_id,
            "claim": claim,
            "attempt": attempt,
            "attempt_id": attempt_id,
            "first_seq": first_seq,
            "events": events,
        }
        return cls._of_valid(values, set(values))
