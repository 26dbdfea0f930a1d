"""The real Pi behind a real Kafka: what its provider would trace hangs below our span of the call."""

from pathlib import Path

from agentstream.consumers.agent_config import DEFAULT_LIMITS, WorkerAgentConfig
from agentstream.consumers.harness.pi import PiHarness
from agentstream.infra.offline_model import OfflineModel
from agentstream.producers.requests import RequestProducer
from agentstream.schemas import span_names as names
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest, Limits
from tests.chaos.inside import plan_of, serving
from tests.integration.pi_fixtures import credentials, settings
from tests.integration.tracing_fixtures import GIVEN, arrived
from tests.support.cluster import Cluster
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.spans import by_name
from tests.support.tracing import exporting, of_trace

TOOL_THEN_ANSWER = '[[usage: prompt=1000 cached=200 completion=50]][[tool:bash {"command": "true"}]][[say: done]]'


def asking(text: str) -> InvokeRequest:
    return InvokeRequest(
        id="run",
        messages=(Message.of_text("user", text),),
        parameters=AgentParameters(credentials="offline", tools=("bash",), limits=Limits(max_attempts=1)),
    )


async def traced(
    cluster: Cluster, receiver: OtlpReceiver, caller: RequestProducer, scratch: Path, text: str
) -> tuple[list[str], OfflineModel]:
    """The tree of one run, and the provider that it called."""
    async with OfflineModel() as model, PiHarness(settings(scratch)) as pi:
        config = WorkerAgentConfig(
            harnesses={"pi": pi},
            default_harness="pi",
            default_model="offline/demo",
            tools=frozenset({"bash"}),
            limits=DEFAULT_LIMITS,
            credentials={"offline": credentials(model, prices=("2", "10"))},
        )
        plan = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config, harnesses={"pi": pi})
        await caller.submit(asking(text), GIVEN)
        async with exporting(plan, receiver) as traced_plan, serving(traced_plan):
            await cluster.tail.result("run")
            await cluster.until_committed(1)
            return await arrived(cluster, receiver, GIVEN.trace_id), model


async def test_each_model_call_carries_the_id_of_its_span_and_the_callers_baggage(
    cluster: Cluster, receiver: OtlpReceiver, caller: RequestProducer, tmp_path: Path
) -> None:
    lines, model = await traced(cluster, receiver, caller, tmp_path, TOOL_THEN_ANSWER)
    assert lines == [
        "process invoke-requests",
        "  invoke_agent pi",
        "    turn 1",
        "      chat demo",
        "      execute_tool bash",
        "    turn 2",
        "      chat demo",
        "  send assistant-messages",
    ]
    spans = of_trace(receiver, GIVEN.trace_id)
    chats = sorted((span for span in spans if span.name == "chat demo"), key=lambda span: span.start_ns)
    assert [call.headers["traceparent"] for call in model.calls] == [
        f"00-{GIVEN.trace_id}-{span.span_id}-01" for span in chats
    ]
    assert {call.headers["baggage"] for call in model.calls} == {"c=d"}
    for chat in chats:
        assert chat.attributes[names.PROVIDER] == "offline"
        assert chat.attributes[names.RESPONSE_MODEL] == "demo"
        assert names.TIME_TO_FIRST_CHUNK in chat.attributes
    used = [(c.attributes.get(names.INPUT_TOKENS), c.attributes.get(names.CACHE_READ_TOKENS)) for c in chats]
    assert (1000, 200) in used, "cached tokens are part of those read"
    agent = by_name(spans, "invoke_agent pi")
    (result,) = cluster.tail.results
    assert result.cost is not None
    assert agent.attributes[names.COST] == result.cost.amount
    assert agent.attributes[names.AGGREGATED_INPUT_TOKENS] == result.usage[0].input_tokens


async def test_a_provider_that_refuses_is_told_on_the_call_that_it_refused(
    cluster: Cluster, receiver: OtlpReceiver, caller: RequestProducer, tmp_path: Path
) -> None:
    lines, _ = await traced(cluster, receiver, caller, tmp_path, "[[fail:401]]")
    assert lines == [
        "process invoke-requests !provider_auth",
        "  invoke_agent pi !provider_auth",
        "    turn 1 !provider_auth",
        "      chat demo !provider_auth",
        "  send assistant-messages",
        "  send dead-letters",
    ]
