"""What a replay is asked to do. Whoever goes on with one must ask for the same."""

from typing import Literal, Self

from pydantic import Field, model_validator

from agentstream.schemas.base import Int, WireModel
from agentstream.schemas.recordings import ReplayMode
from agentstream.schemas.requests import AgentParameters, ToolName

OnMiss = Literal["stop", "error", "real"]
History = Literal["recorded", "relived"]


class ReplayTerms(WireModel):
    """What decides about outcomes. How fast and how much of it is the `Budget`'s, and may differ each time."""

    mode: ReplayMode = Field(default="live", description="What comes from the recording.")
    changes: AgentParameters = Field(
        default_factory=AgentParameters, description="Parameters that take the place of the recorded ones."
    )
    repeats: Int = Field(default=1, ge=1, le=1_000, description="How often each run is played.")
    history: History = Field(
        default="recorded", description="What later turns are asked with: the recorded history, or the replay's own."
    )
    on_miss: OnMiss = Field(
        default="stop",
        description="hybrid, a tool call that the recording has no answer to: stop the run, tell the model that it "
        "failed, or run the real tool if it is one of `real_tools`.",
    )
    real_tools: tuple[ToolName, ...] = Field(
        default=(),
        description="Tools that may really run: hybrid, on a miss; live, those that do more than read.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.on_miss != "stop" and self.mode != "hybrid":
            raise ValueError(f"on_miss {self.on_miss} is for hybrid replays, this one is {self.mode}")
        if self.mode == "frozen" and self.real_tools:
            raise ValueError("no tool really runs in a frozen replay: real tools are for hybrid and live ones")
        if self.mode == "hybrid" and (self.on_miss == "real") != bool(self.real_tools):
            raise ValueError("on_miss real and the names of real tools go together")
        return self
