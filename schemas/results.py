"""What comes of a request for good: `InvokeResult`, and `FinishedRun` for the index of finished runs."""

import json
from typing import Literal, Self

from pydantic import Field

from agentstream.schemas.base import Instant, Int, Metadata, RunId, SessionId, WireModel, without_lone_surrogates
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import RunStatus
from agentstream.schemas.messages import Cost, FinishReason, Message, Usage
from agentstream.schemas.requests import AgentParameters


class HarnessInfo(WireModel):
    """What ran the agent."""

    kind: str = Field(description="The harness.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the harness and what it stands on.")


class InvokeResult(WireModel):
    """The one terminal record of a run, whatever its outcome."""

    run_id: RunId = Field(description="The run.")
    session_id: SessionId = Field(description="The run's session.")
    partition: Int = Field(ge=0, description="Partition number of the request, and of everything that came of it.")
    status: RunStatus = Field(description="completed, failed or cancelled.")
    messages: tuple[Message, ...] = Field(default=(), description="Everything the agent added, in order.")
    finish_reason: FinishReason | None = Field(default=None, description="Why the model stopped.")
    usage: tuple[Usage, ...] = Field(default=(), description="Tokens, per provider and model.")
    cost: Cost | None = Field(default=None, description="What it cost; absent where unknown.")
    error: Problem | None = Field(default=None, description="What went wrong, unless completed.")
    claim: Int = Field(ge=0, description="The claim under which it ended.")
    attempt: Int = Field(ge=0, description="The attempt that ended it; 0 if none began.")
    attempt_id: str | None = Field(default=None, description="uuid7 of that attempt: only its deltas count.")
    crashes: Int = Field(default=0, ge=0, description="Attempts lost with a worker.")
    last_seq: Int = Field(default=-1, ge=-1, description="`seq` of the attempt's last event; −1 if it has none.")
    deltas: Literal["complete", "partial"] = Field(description="Whether all events of the attempt were published.")
    parameters: AgentParameters = Field(description="The parameters as they took effect.")
    harness: HarnessInfo | None = Field(default=None, description="What ran the agent; absent if nothing ran.")
    metadata: Metadata = Field(default_factory=dict, description="Copied from the request.")
    redrive_of: RunId | None = Field(default=None, description="The run that this one was sent again for.")
    trace_id: str | None = Field(default=None, description="W3C trace id of the run, 32 hex digits.")
    requested_at: Instant | None = Field(default=None, description="Timestamp of the request's record.")
    started_at: Instant | None = Field(default=None, description="When the attempt began; absent if none did.")
    ended_at: Instant = Field(description="When the run ended.")

    @property
    def text(self) -> str:
        """The text of the last assistant message, or an empty string."""
        return next((m.text for m in reversed(self.messages) if m.role == "assistant"), "")


FinishedStatus = Literal["completed", "failed", "cancelled", "rejected"]
MAX_FINISHED_BYTES = 200
"""A new owner loads 10,000 of these before it starts: 2 MB a partition."""
_SURE_ROOM = 50
"""Bytes that are left for the session whatever else a line says: 150 are used by the longest."""


class FinishedRun(WireModel):
    """One line of the index of finished runs, at most 200 bytes: what a new owner must know not to run twice."""

    status: FinishedStatus = Field(description="How it ended; rejected: a dead letter without a run id.")
    session_id: str = Field(default="", max_length=64, description="The beginning of the run's session, as it fits.")
    offset: Int = Field(ge=0, le=2**63 - 1, description="The request's offset; its partition is the record's own.")
    attempt_id: str | None = Field(
        default=None, pattern=r"^[0-9a-f-]{1,36}$", description="uuid7 of the attempt that ended it."
    )
    body_hash: str = Field(
        pattern=r"^[0-9a-f]{16}$", description="First 16 hex digits of the SHA-256 of the request's value."
    )

    @classmethod
    def bounded(
        cls, *, status: FinishedStatus, session_id: str, offset: int, attempt_id: str | None, body_hash: str
    ) -> Self:
        """A line of at most 200 bytes: the session is cut between characters to the bytes that are left as JSON.

        `attempt_id` and `body_hash` are of our own making, ASCII of at most 36 and 16 characters; ValueError otherwise.
        """
        if session_id.isascii() and len(json.dumps(session_id)) - 2 <= _SURE_ROOM:
            # Nearly all, and there is one of these for each run: to measure and cut them takes three times as long.
            return cls(status=status, session_id=session_id, offset=offset, attempt_id=attempt_id, body_hash=body_hash)
        bare = cls(status=status, offset=offset, attempt_id=attempt_id, body_hash=body_hash)
        room = MAX_FINISHED_BYTES - len(bare.to_bytes())
        return bare.model_copy(update={"session_id": _beginning(session_id, room)})


def _beginning(text: str, room: int) -> str:
    """As much of the text as takes no more than `room` bytes as JSON, and no more than 64 characters."""
    kept = without_lone_surrogates(text[:64])
    while len(json.dumps(kept, ensure_ascii=False).encode()) - 2 > room:
        kept = kept[:-1]
    return kept
