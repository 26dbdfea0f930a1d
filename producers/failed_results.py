"""Failed results that no run made: of a request that never ran, of a run whose own result cannot be written."""

from datetime import UTC, datetime

from agentstream.schemas.errors import MAX_DETAIL, ErrorCode, Problem
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext

MAX_KEPT_USAGE = 16
MAX_FALLBACK_BYTES = 16 * 1024
LAST_MS = 253_370_764_800_000
"""The year 9999. A caller may stamp a record with any 64-bit number; no calendar holds it, and the worker crashed."""


def too_large(result: InvokeResult) -> InvokeResult:
    """The result of a run whose own result cannot be written: at most 16 KiB as JSON, whatever the run did.

    A failed result stays the failure it was; a completed one becomes `output_too_large`. Messages, metadata and most
    parameters go; model, cost, harness and usage stay if they fit, since their texts are the harness's to choose.
    """
    problem = result.error or Problem.of(
        ErrorCode.OUTPUT_TOO_LARGE, f"{len(result.messages)} messages do not fit into one result record"
    )
    cut = {"title": problem.title[:MAX_DETAIL], "detail": problem.detail and problem.detail[:MAX_DETAIL]}
    small = result.model_copy(
        update={
            "status": "cancelled" if result.status == "cancelled" else "failed",
            "messages": (),
            "error": problem.model_copy(update=cut),
            "parameters": AgentParameters(),
            "metadata": {},
            "cost": None,
            "harness": None,
            "usage": (),
        }
    )
    wanted = {
        "parameters": AgentParameters(model=result.parameters.model),
        "cost": result.cost,
        "harness": result.harness,
        "usage": result.usage[:MAX_KEPT_USAGE],
    }
    for name, value in wanted.items():
        with_it = small.model_copy(update={name: value})
        if len(with_it.to_bytes()) <= MAX_FALLBACK_BYTES:
            small = with_it
    return small


def failed_without_run(  # noqa: PLR0913 - a result in which nearly everything is absent
    *,
    run_id: str,
    session_id: str,
    partition: int,
    claim: int,
    problem: Problem,
    timestamp_ms: int,
    trace: TraceContext,
    redrive_of: str | None = None,
) -> InvokeResult:
    """The result of a request that never ran."""
    return InvokeResult(
        run_id=run_id,
        session_id=session_id,
        partition=partition,
        status="failed",
        error=problem,
        claim=claim,
        attempt=0,
        deltas="complete",
        parameters=AgentParameters(),
        redrive_of=redrive_of,
        trace_id=trace.trace_id,
        requested_at=datetime.fromtimestamp(timestamp_ms / 1000, UTC) if 0 <= timestamp_ms < LAST_MS else None,
        ended_at=datetime.now(UTC),
    )
