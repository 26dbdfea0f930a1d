"""What recordings and replays are made of: one JSON object a line. The files around them are consumers/replay's.

A recording holds `RecordedRun`s: what was asked, what happened, what came of it. A replay of it holds a `ReplayedRun`
for each of them and each repeat; comparisons read both and nothing else.
"""

from typing import Literal

from pydantic import Field, JsonValue

from agentstream.schemas.base import Instant, Int, RunId, SessionId, WireModel
from agentstream.schemas.events import ReadEvent
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult

Gap = Literal["no_result", "no_events", "events_incomplete"]
"""What the log no longer has, or never had, of a run. Said, not guessed: a replay that needs it refuses the run."""


class SourceRecord(WireModel):
    """Where a request lay."""

    topic: str = Field(description="The input topic's full name.")
    partition: Int = Field(ge=0, description="Its partition.")
    offset: Int = Field(ge=0, description="Its offset.")
    timestamp_ms: Int = Field(description="The record's timestamp, ms since 1970.")


class RecordedRun(WireModel):
    """One run as it was: or a case of somebody's own data set, which has no events and perhaps no result."""

    run_id: RunId = Field(description="The run; names the case in everything that comes of it.")
    session_id: SessionId = Field(description="Its session: the cases of one are replayed in order.")
    turn: Int = Field(ge=0, description="Its place within its session in this recording, from 0.")
    source: SourceRecord | None = Field(default=None, description="Where its request lay; absent for a data set.")
    request: InvokeRequest = Field(description="What was asked, with `id` and `session_id` filled.")
    result: InvokeResult | None = Field(default=None, description="What came of it, if anything did.")
    events: tuple[ReadEvent, ...] = Field(default=(), description="Events of the attempt that the result is of.")
    gaps: tuple[Gap, ...] = Field(default=(), description="What is missing.")
    expected: JsonValue = Field(default=None, description="The right answer, where a data set gives one.")


class Divergence(WireModel):
    """The first place where a replay does something else than was recorded."""

    index: Int = Field(ge=0, description="How many steps agreed before it.")
    what: str = Field(description="In one line: another tool call, other arguments, an end too early.")
    recorded: JsonValue = Field(default=None, description="What the recording has there; absent: it had ended.")
    replayed: JsonValue = Field(default=None, description="What came instead; absent: it ended.")


ReplayMode = Literal["live", "frozen", "hybrid"]
Conversation = Literal["recorded", "relived", "broken"]
"""recorded: with the recorded history. relived: with what the replay answered before. broken: the next turn of the user
would not fit what was answered, so the recorded history was taken."""


class ReplayedRun(WireModel):
    """One run of one case in a replay."""

    run_id: RunId = Field(description="The case: the id of the recorded run.")
    repeat: Int = Field(default=0, ge=0, description="Which repetition, from 0.")
    session_id: SessionId = Field(description="The recorded session: outcomes of one are not independent.")
    result: InvokeResult = Field(description="What came of it; its own run and session ids have the replay's prefix.")
    divergence: Divergence | None = Field(default=None, description="Where it left the recording; frozen and hybrid.")
    conversation: Conversation = Field(default="recorded", description="Which history it was asked with.")
    tools_from_recording: Int = Field(default=0, ge=0, description="Tool calls answered from the recording.")
    tools_real: Int = Field(default=0, ge=0, description="Tool calls that really ran.")
    began_at: Instant = Field(description="When it began.")
    seconds: float = Field(ge=0, description="How long it took.")
