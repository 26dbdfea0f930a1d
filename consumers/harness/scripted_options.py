"""The options of the `scripted` harness: a play, written down."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agentstream.schemas.base import Flag, Int
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.messages import Usage

Milliseconds = Annotated[Int, Field(ge=0, le=3_600_000)]
Hang = Literal["before_first", "mid_text", "in_tool", "ignore_cancel"]
Crash = Literal["adapter", "worker"]


class ScriptedTool(BaseModel):
    """A tool call that is played, one turn for each. No tool is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="The tool's name.")
    arguments: JsonValue = Field(default_factory=dict, description="What it is called with.")
    result: JsonValue = Field(default="ok", description="What it answers.")
    is_error: Flag = Field(default=False, description="Whether it fails.")
    duration_ms: Milliseconds = Field(default=0, description="How long it takes.")


class ScriptedOptions(BaseModel):
    """What the agent does. The order is: hang or fail before the first event, tools, text, misbehaviour, end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, max_length=1_000_000, description="The answer; absent: an echo.")
    delay_ms: Milliseconds = Field(default=0, description="Between two deltas.")
    tools: tuple[ScriptedTool, ...] = Field(default=(), max_length=1_000, description="Tool calls before the answer.")
    usage: Usage | None = Field(default=None, description="Usage of the answer; absent: none is reported.")
    fail_attempts: Int = Field(default=0, ge=0, le=1_000, description="The first n attempts fail, to be tried again.")
    error: ErrorCode | None = Field(default=None, description="Fail for good under this code, after half the answer.")
    hang: Hang | None = Field(default=None, description="Where to stop for ever.")
    crash: Crash | None = Field(default=None, description="Crash after half the answer: adapter, or the whole worker.")
    output_bytes: Int | None = Field(default=None, ge=0, le=1_000_000_000, description="Answer so many bytes instead.")
    raises: Flag = Field(default=False, alias="raise", description="Raise after half the answer, which is a bug.")
    no_terminal: Flag = Field(default=False, description="End without a terminal event, which is a bug.")
    two_terminals: Flag = Field(default=False, description="End with two terminal events, which is a bug.")
