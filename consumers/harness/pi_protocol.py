"""The lines between the worker and the Pi sidecar: versioned JSON Lines, defined here and nowhere else.

    worker -> sidecar    run, cancel, tool_result, ack, ping
    sidecar -> worker    ready, event, tool_call, waiting, done, pong, error

The sidecar (`infra/pi-sidecar/src/protocol.js`) checks what it reads by hand; the golden lines in
`infra/pi-sidecar/test/golden-lines.jsonl` are tested on both sides. A new optional field is no new version.

Over HTTP a line to the sidecar is the body of a `POST /run`. A `run` is answered with `ready`, the run's lines and, in
silence, empty ones; the answer ends when nothing of the run is left. Its connection is its window: there is no `ack`.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from agentstream.consumers.harness.port import HarnessEvent
from agentstream.schemas.base import WireModel
from agentstream.schemas.messages import Cost, FinishReason, Message
from agentstream.schemas.requests import Thinking

PROTOCOL = 1
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Enforced both ways. asyncio's limit of 64 KiB would kill the reader; 15 MiB in and 2 MiB out were measured fine."""


class Line(WireModel):
    """One line. Unknown fields are ignored; None is left out."""

    def to_bytes(self) -> bytes:
        """The line with its newline. JSON escapes newlines inside strings, so there is only one."""
        return super().to_bytes() + b"\n"


class ModelChoice(Line):
    """A model by provider and id."""

    provider: str = Field(description="The part before the first slash.")
    id: str = Field(description="The rest.")


class Endpoint(Line):
    """How to reach the provider. Travels on stdin only: argv and environment can be read by others."""

    api_key: str | None = Field(default=None, repr=False, description="The key; a secret.")
    base_url: str | None = Field(default=None, description="An endpoint of the worker's own.")
    api: str | None = Field(default=None, description="Its dialect, such as `openai-completions`.")
    headers: dict[str, str] = Field(default_factory=dict, repr=False, description="Additional headers; may be secret.")
    input_price: str | None = Field(default=None, description="USD per million tokens read.")
    output_price: str | None = Field(default=None, description="USD per million tokens written.")


class PythonToolLine(Line):
    """A tool that Python answers."""

    name: str = Field(description="What the model calls it.")
    description: str = Field(description="What the model reads about it.")
    parameters: dict[str, JsonValue] = Field(description="JSON Schema of its arguments.")


class RunLine(Line):
    """Start an attempt."""

    type: Literal["run"] = "run"
    run: str = Field(description="Names the attempt on this pipe; the attempt id.")
    mark: str | None = Field(
        default=None,
        description="Value of AGENTSTREAM_RUN in the environment of each of its processes; over HTTP the server's.",
    )
    workdir: str | None = Field(
        default=None,
        description="Its throwaway directory, an empty one if it has no tools; Python's. Over HTTP the server's.",
    )
    model: ModelChoice = Field(description="The model.")
    endpoint: Endpoint = Field(default_factory=Endpoint, description="How to reach it.")
    messages: tuple[Message, ...] = Field(min_length=1, description="History and the new turn.")
    agents_md: str = Field(default="", description="The instructions.")
    tools: tuple[str, ...] = Field(default=(), description="Tools of Pi's that are allowed.")
    python_tools: tuple[PythonToolLine, ...] = Field(default=(), description="Tools that Python answers.")
    ask_first: bool = Field(
        default=False, description="Ask Python before each tool of Pi's: it answers, or says that it is to run."
    )
    thinking: Thinking = Field(default="off", description="How hard to think.")
    max_turns: int = Field(ge=1, description="Model calls, exactly.")
    traceparent: str | None = Field(default=None, description="The attempt's span; each call gets an id made of it.")
    tracestate: str | None = Field(default=None, description="Carried on.")
    baggage: str | None = Field(default=None, description="Carried on.")
    apart: bool = Field(default=False, description="Over HTTP: in a process with no other run.")
    window: int | None = Field(default=None, ge=1, description="Unacknowledged lines before this run is paused.")
    shell_prefix: tuple[str, ...] = Field(default=(), description="Put before the shell's argv: a sandbox.")


class CancelLine(Line):
    """End a run; its `done` says cancelled."""

    type: Literal["cancel"] = "cancel"
    run: str = Field(description="The run.")


class ToolResultLine(Line):
    """The answer to a `tool_call`."""

    type: Literal["tool_result"] = "tool_result"
    run: str = Field(description="The run.")
    tool_call_id: str = Field(description="The call.")
    content: str = Field(description="What the model reads.")
    is_error: bool = Field(default=False, description="Whether the tool failed.")
    run_tool: bool = Field(default=False, description="No answer: let the tool of Pi's run; after `ask_first`.")


class AckLine(Line):
    """All lines of the run up to `n` have been dealt with."""

    type: Literal["ack"] = "ack"
    run: str = Field(description="The run.")
    n: int = Field(ge=0, description="Number of the last line.")


class PingLine(Line):
    """Are you there?"""

    type: Literal["ping"] = "ping"
    id: int = Field(ge=0, description="Comes back in the pong.")


class ReadyLine(Line):
    """The first line of a sidecar."""

    type: Literal["ready"] = "ready"
    protocol: int = Field(description="Version of these lines.")
    pi: str = Field(description="Version of Pi.")
    node: str = Field(description="Version of Node.")
    max_line_bytes: int = Field(ge=1, description="The longest line it reads or writes.")
    pid: int = Field(description="Its process id.")


class EventLine(Line):
    """Something happened in a run."""

    type: Literal["event"] = "event"
    run: str = Field(description="The run.")
    n: int = Field(ge=1, description="Number of the line within the run, without gaps.")
    event: Annotated[HarnessEvent, Field(discriminator="type")] = Field(description="The event, unnumbered.")


class ToolCallLine(Line):
    """The model calls a tool that Python answers with a `tool_result`."""

    type: Literal["tool_call"] = "tool_call"
    run: str = Field(description="The run.")
    n: int = Field(ge=1, description="Number of the line within the run.")
    tool_call_id: str = Field(description="The call.")
    tool_name: str = Field(description="The tool.")
    arguments: JsonValue = Field(default=None, description="Arguments that satisfy the tool's schema.")


class WaitingLine(Line):
    """Over HTTP: the run waits for a process of its own. At least once a second until there is one."""

    type: Literal["waiting"] = "waiting"
    run: str = Field(description="The run.")


class DoneError(Line):
    """Why a run failed."""

    code: str = Field(description="From the project's table of codes.")
    detail: str = Field(description="One line without secrets.")
    retriable: bool | None = Field(default=None, description="Where it is known better than the table says.")
    retry_after_ms: int | None = Field(default=None, ge=0, description="The provider's Retry-After.")
    status: int | None = Field(default=None, description="The provider's HTTP status.")


class DoneLine(Line):
    """The last line of a run, exactly once."""

    type: Literal["done"] = "done"
    run: str = Field(description="The run.")
    n: int = Field(ge=1, description="Number of the line within the run.")
    status: Literal["completed", "failed", "cancelled"] = Field(description="How it ended.")
    finish_reason: FinishReason | None = Field(default=None, description="Why the model stopped; if completed.")
    error: DoneError | None = Field(default=None, description="What went wrong; if failed.")
    cost: Cost | None = Field(default=None, description="What it cost, where known.")


class PongLine(Line):
    """The answer to a ping."""

    type: Literal["pong"] = "pong"
    id: int = Field(ge=0, description="The ping's.")


class ErrorLine(Line):
    """The sidecar could not understand a line."""

    type: Literal["error"] = "error"
    detail: str = Field(description="What was wrong with it.")
    run: str | None = Field(default=None, description="The run it was about, where it says so.")


RunOutput = EventLine | ToolCallLine | DoneLine
Incoming = Annotated[
    ReadyLine | EventLine | ToolCallLine | WaitingLine | DoneLine | PongLine | ErrorLine, Field(discriminator="type")
]
Outgoing = Annotated[RunLine | CancelLine | ToolResultLine | AckLine | PingLine, Field(discriminator="type")]
_INCOMING: TypeAdapter[Incoming] = TypeAdapter(Incoming)
# The adapter's own `validate_json` is a function of Python's around this, a seventh of the time of a line.
_read_json = _INCOMING.validator.validate_json
OUTGOING: TypeAdapter[Outgoing] = TypeAdapter(Outgoing)
"""What a sidecar reads; here for the golden lines, which both sides check."""


class UnreadableLine(Exception):
    """The sidecar wrote something that is no line of the protocol. Says what, never quotes it."""


def parse_line(raw: bytes) -> Incoming:
    """A line of the sidecar's. Raises UnreadableLine."""
    try:
        line: Incoming = _read_json(raw)
        return line
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UnreadableLine(f"{where or 'line'}: {first['type']}") from None
