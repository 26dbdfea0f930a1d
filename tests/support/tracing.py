"""A worker whose spans arrive at a real receiver, and requests for it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from pydantic import JsonValue

from agentstream.consumers.harness.port import HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.infra.compose import WorkerPlan
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import open_telemetry
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest, Limits
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.otlp_values import SpanSeen

LONG_DELAY_MS = 600_000
"""Nothing leaves by itself within a test: what arrives was flushed."""


def environment(receiver: OtlpReceiver) -> Mapping[str, str]:
    """The variables of a process that exports to the receiver, as soon as somebody asks for it and not before."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": str(LONG_DELAY_MS)}


class Healed(ScriptedHarness):
    """Plays what is asked, but does not hang."""

    def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        options = {name: value for name, value in request.choice.options.items() if name != "hang"}
        return super().run(replace(request, choice=HarnessChoice(kind="scripted", options=options)))


@asynccontextmanager
async def exporting(plan: WorkerPlan, receiver: OtlpReceiver) -> AsyncIterator[WorkerPlan]:
    """The plan, with spans going to the receiver."""
    async with open_telemetry(telemetry_settings(environment(receiver))) as opened:
        yield replace(plan, tracer_provider=opened.tracer_provider, flush_spans=opened.flush)


def request(
    run_id: str,
    options: dict[str, JsonValue],
    *,
    session_id: str | None = None,
    limits: Mapping[str, int] | None = None,
) -> InvokeRequest:
    """A request for the scripted harness."""
    return InvokeRequest(
        id=run_id,
        session_id=session_id,
        messages=(Message.of_text("user", "hi"),),
        parameters=AgentParameters(
            harness=HarnessChoice(kind="scripted", options=options), limits=Limits(**(limits or {}))
        ),
    )


def of_trace(receiver: OtlpReceiver, trace_id: str | None) -> list[SpanSeen]:
    """The spans of one trace that have arrived."""
    return [span for span in receiver.spans if span.trace_id == trace_id]
