"""What an evaluator said of a run, under the names of OpenTelemetry's gen_ai.evaluation.*: the topic of evaluations."""

from typing import Literal

from pydantic import ConfigDict, Field

from agentstream.schemas.base import Instant, Int, RunId, SessionId, WireModel

EvaluationLabel = Literal["pass", "fail", "error"]


class EvaluationResult(WireModel):
    """One evaluator on one run of one case. The run itself is where `run_id` leads."""

    # By their dotted names on the wire: whoever reads these attributes from spans reads the same ones here.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_alias=True, validate_by_name=True)

    run_id: RunId = Field(description="The case: the id of the recorded run.")
    session_id: SessionId = Field(description="Its session.")
    comparison_id: str = Field(description="The comparison that it is of, a uuid7.")
    side: Literal["baseline", "candidate"] = Field(description="Which side of the comparison.")
    repeat: Int = Field(default=0, ge=0, description="Which repetition, from 0.")
    replay_run_id: RunId | None = Field(default=None, description="The run that was judged, where it was a replay's.")
    name: str = Field(alias="gen_ai.evaluation.name", description="The evaluator.")
    score_value: float | None = Field(
        default=None, alias="gen_ai.evaluation.score.value", description="Its number; of a pass 1, of a failure 0."
    )
    score_label: EvaluationLabel | None = Field(
        default=None, alias="gen_ai.evaluation.score.label", description="pass, fail or error; absent: only a number."
    )
    explanation: str | None = Field(
        default=None, alias="gen_ai.evaluation.explanation", description="Why, or what the evaluator raised."
    )
    trace_id: str | None = Field(default=None, description="W3C trace id of the run that was judged, 32 hex digits.")
    span_id: str | None = Field(default=None, description="The span of the run's attempt in that trace, 16 hex digits.")
    recorded_trace_id: str | None = Field(default=None, description="W3C trace id of the recorded run, 32 hex digits.")
    recorded_span_id: str | None = Field(default=None, description="The span of the recorded run's attempt in there.")
    evaluated_at: Instant = Field(description="When the comparison was made.")
