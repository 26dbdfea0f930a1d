"""Cases, results and comparisons made by hand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.replay.comparing.answers import Answer, NamedEvaluator
from agentstream.consumers.replay.comparing.comparison import Sources
from agentstream.consumers.replay.comparing.report import Report, make_report
from agentstream.consumers.replay.comparing.sides import Answers, GivenAnswers, Recorded
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.messages import Cost, FinishReason, Message, Part, TextPart, ToolCallPart, Usage
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from agentstream.schemas.results import InvokeResult

BEGAN = datetime(2026, 5, 1, 12, tzinfo=UTC)
Calls = Sequence[tuple[str, JsonValue]]


def result(
    text: str = "",
    *,
    seconds: float | None = 1.0,
    tokens: tuple[int, int] | None = None,
    cost: tuple[str, str] | None = None,
    calls: Calls = (),
    failed: bool = False,
    finish: FinishReason = "stop",
) -> InvokeResult:
    """What came of a run. `seconds` None: no attempt began."""
    parts: list[Part] = [ToolCallPart(id=f"c{n}", name=name, arguments=given) for n, (name, given) in enumerate(calls)]
    read, written = tokens or (0, 0)
    return InvokeResult(
        run_id="replayed",
        session_id="replayed",
        partition=0,
        status="failed" if failed else "completed",
        messages=(Message(role="assistant", parts=(*parts, TextPart(content=text))),),
        finish_reason=finish,
        usage=(Usage(provider="p", model="m", input_tokens=read, output_tokens=written),) if tokens else (),
        cost=Cost(amount=cost[0], currency=cost[1], source="settings") if cost else None,
        error=Problem.of(ErrorCode.PROVIDER_ERROR, "it is down") if failed else None,
        claim=1,
        attempt=1,
        deltas="complete",
        parameters=AgentParameters(),
        started_at=None if seconds is None else BEGAN,
        ended_at=BEGAN + timedelta(seconds=seconds or 0),
    )


def case(
    run_id: str = "r0",
    recorded: InvokeResult | None = None,
    *,
    session: str | None = None,
    question: str = "why?",
    expected: JsonValue = None,
) -> RecordedRun:
    """One case; by default a session of its own, without a recorded result."""
    return RecordedRun(
        run_id=run_id,
        session_id=session or f"session of {run_id}",
        turn=0,
        request=InvokeRequest(messages=(Message.of_text("user", question),)),
        result=recorded,
        expected=expected,
    )


def answer(text: str = "", *, of: RecordedRun | None = None, came: InvokeResult | None = None) -> Answer:
    """An answer to be judged."""
    return Answer(case=of or case(), result=came or result(text))


def given(results: Mapping[str, Sequence[InvokeResult]], name: str = "candidate") -> GivenAnswers:
    """A side in memory."""
    return GivenAnswers(name=name, results={run_id: tuple(each) for run_id, each in results.items()})


async def report(
    cases: Sequence[RecordedRun],
    candidate: Answers,
    *,
    out: Path,
    baseline: Answers | None = None,
    evaluators: Sequence[str | NamedEvaluator] = ("exact",),
    fail_if: Sequence[str] = (),
) -> Report:
    """A whole comparison."""
    sources = Sources(recording="made by hand", baseline=baseline or Recorded(), candidate=candidate)
    return await make_report(sources, cases, evaluators=evaluators, fail_if=fail_if, out=out)
