"""What an operator reads in a trace backend: real workers on a real Kafka, spans by OTLP to a real receiver."""

from dataclasses import replace

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_files import AgentFiles
from agentstream.infra.compose import WorkerPlan
from agentstream.producers.requests import RequestProducer, Submitted
from agentstream.schemas import span_names as names
from agentstream.schemas.headers import last_wins
from agentstream.schemas.records import Headers
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.trace import TraceContext
from tests.chaos.inside import serving
from tests.integration.tracing_fixtures import GIVEN, arrived
from tests.support.cluster import Cluster
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.spans import by_name
from tests.support.tracing import of_trace, request

TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "text"}
USAGE: dict[str, JsonValue] = {"provider": "p", "model": "m", "input_tokens": 10, "output_tokens": 2}


async def run(
    cluster: Cluster,
    plan: WorkerPlan,
    caller: RequestProducer,
    asked: InvokeRequest,
    trace: TraceContext | None = GIVEN,
) -> Submitted:
    """Send a request and let a worker finish it. The worker's end flushes nothing: telemetry is still open then."""
    submitted = await caller.submit(asked, trace)
    async with serving(plan):
        await cluster.tail.result(submitted.run_id)
        await cluster.until_committed(1)
    return submitted


async def test_a_request_is_one_tree_from_the_producers_span_to_each_model_call_and_tool(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver
) -> None:
    options: dict[str, JsonValue] = {"text": "well then", "tools": [TOOL], "usage": USAGE}
    submitted = await run(cluster, plan, caller, request("run", options, session_id="s"))
    assert await arrived(cluster, receiver, GIVEN.trace_id) == [
        "send invoke-requests",
        "  process invoke-requests",
        "    invoke_agent scripted",
        "      turn 1",
        "        chat",
        "        execute_tool read",
        "      turn 2",
        "        chat",
        "    send assistant-messages",
    ]
    spans = of_trace(receiver, GIVEN.trace_id)
    sent, process, agent, out = (
        by_name(spans, name.format(cluster.topics.prefix))
        for name in (
            "send {}invoke-requests",
            "process {}invoke-requests",
            "invoke_agent scripted",
            "send {}assistant-messages",
        )
    )
    assert (sent.kind, sent.parent_id, submitted.trace.span_id) == ("producer", GIVEN.span_id, sent.span_id)
    assert [link.span_id for link in process.links] == [sent.span_id]
    assert process.attributes[names.GROUP] == cluster.group_id
    assert {span.attributes[names.SESSION_ID] for span in spans if span is not out} == {"s"}
    assert any(event.name == names.TURN_CAME for event in process.events)
    assert process.end_ns >= out.end_ns >= agent.end_ns
    # What reads the outputs goes on where the spans are.
    (result,) = cluster.tail.of("assistant_messages")
    assert _context(result.headers) == (GIVEN.trace_id, out.span_id, "c=d")
    deltas = {_context(record.headers) for record in cluster.tail.of("stream_deltas")}
    assert deltas == {(GIVEN.trace_id, agent.span_id, "c=d")}


def _context(headers: Headers) -> tuple[str, str, str | None]:
    found = TraceContext.parse(last_wins(headers))
    assert found is not None
    return found.trace_id, found.span_id, found.baggage


FAILURES: dict[str, tuple[dict[str, JsonValue], dict[str, int], list[str]]] = {
    "a tool's error": (
        {"text": "well", "tools": [{**TOOL, "is_error": True}]},
        {},
        [
            "  process invoke-requests",
            "    invoke_agent scripted",
            "      turn 1",
            "        chat",
            "        execute_tool read !tool_error",
            "      turn 2",
            "        chat",
            "    send assistant-messages",
        ],
    ),
    "a tool that never ends": (
        {"tools": [TOOL], "hang": "in_tool"},
        {"tool_ms": 300, "max_attempts": 1},
        [
            "  process invoke-requests !tool_timeout",
            "    invoke_agent scripted !tool_timeout",
            "      turn 1 !tool_timeout",
            "        chat",
            "        execute_tool read !tool_timeout",
            "    send assistant-messages",
            "    send dead-letters",
        ],
    ),
    "a provider's error": (
        {"fail_attempts": 9},
        {"max_attempts": 1},
        [
            "  process invoke-requests !provider_error",
            "    invoke_agent scripted !provider_error",
            "      turn 1 !provider_error",
            "        chat !provider_error",
            "    send assistant-messages",
            "    send dead-letters",
        ],
    ),
    "a timeout": (
        {"text": "one two", "hang": "mid_text"},
        {"idle_ms": 300, "max_attempts": 1},
        [
            "  process invoke-requests !idle_timeout",
            "    invoke_agent scripted !idle_timeout",
            "      turn 1 !idle_timeout",
            "        chat !idle_timeout",
            "    send assistant-messages",
            "    send dead-letters",
        ],
    ),
    "a crash": (
        {"text": "one two", "crash": "adapter"},
        {"max_attempts": 1},
        [
            "  process invoke-requests !harness_crashed",
            "    invoke_agent scripted !harness_crashed",
            "      turn 1 !harness_crashed",
            "        chat !harness_crashed",
            "    send assistant-messages",
            "    send dead-letters",
        ],
    ),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_a_run_that_failed_is_all_there_with_the_reason_on_what_was_open(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver, what: str
) -> None:
    options, limits, expected = FAILURES[what]
    await run(cluster, plan, caller, request("run", options, limits=limits))
    assert await arrived(cluster, receiver, GIVEN.trace_id) == ["send invoke-requests", *expected]


async def test_an_agent_is_called_what_the_workers_file_calls_it(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver
) -> None:
    named = replace(plan, agent_config=replace(plan.agent_config, files=AgentFiles(name="support")))
    await run(cluster, named, caller, request("run", {"text": "hi"}))
    assert "    invoke_agent support" in await arrived(cluster, receiver, GIVEN.trace_id)
    agent = by_name(of_trace(receiver, GIVEN.trace_id), "invoke_agent support")
    assert (agent.attributes[names.AGENT_NAME], agent.attributes[names.HARNESS]) == ("support", "scripted")


async def test_a_retry_is_there_with_the_attempt_before_and_a_link_to_it(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver
) -> None:
    await run(cluster, plan, caller, request("run", {"text": "hi", "fail_attempts": 1}))
    await arrived(cluster, receiver, GIVEN.trace_id)
    agents = [span for span in of_trace(receiver, GIVEN.trace_id) if span.name == "invoke_agent scripted"]
    first, second = sorted(agents, key=lambda span: span.start_ns)
    assert (first.status, second.status) == ("error", "unset")
    assert [link.span_id for link in second.links] == [first.span_id]
    contexts = [_context(record.headers)[1] for record in cluster.tail.of("stream_deltas")]
    assert sorted(set(contexts), key=contexts.index) == [first.span_id, second.span_id]


async def test_a_cancelled_run_says_so_whether_it_had_begun_or_not(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver
) -> None:
    hangs = await caller.submit(request("hangs", {"text": "one two", "hang": "mid_text"}, session_id="s"))
    waits = await caller.submit(request("waits", {"text": "hi"}, session_id="s"))
    async with serving(plan):
        await cluster.tail.until(lambda: len(cluster.tail.events) > 1)
        await caller.cancel(CancelRun(run_id="waits"))
        await cluster.tail.result("waits")
        await caller.cancel(CancelRun(run_id="hangs"))
        await cluster.tail.result("hangs")
        await cluster.until_committed(2)
    assert await arrived(cluster, receiver, waits.trace.trace_id) == [
        "send invoke-requests",
        "  process invoke-requests !cancelled",
        "    send assistant-messages",
    ]
    assert await arrived(cluster, receiver, hangs.trace.trace_id) == [
        "send invoke-requests",
        "  process invoke-requests !cancelled",
        "    invoke_agent scripted !cancelled",
        "      turn 1 !cancelled",
        "        chat !cancelled",
        "    send assistant-messages",
    ]
