"""What a real worker counts on a real Kafka, read back from the SDK as an exporter would."""

from dataclasses import replace

from pydantic import JsonValue

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.metrics import names
from agentstream.consumers.metrics.gauges import Gauges
from agentstream.infra.compose import WorkerPlan
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.inside import plan_of, serving
from tests.support import workers
from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness
from tests.support.metering import Meters
from tests.support.waiting import eventually

USAGE: JsonValue = {"provider": "openai", "model": "gpt", "input_tokens": 7, "output_tokens": 3}


def scripted(cluster: Cluster, meters: Meters) -> WorkerPlan:
    """A worker whose metrics can be read, and that allows the tool `bash`."""
    allowed = {"scripted": ScriptedHarness()}
    config = WorkerAgentConfig(harnesses=allowed, default_harness="scripted", tools=frozenset({"bash"}))
    plan = plan_of(cluster.bootstrap_servers, cluster.topics.prefix)
    return replace(plan, agent_config=config, meter_provider=meters.provider)


def request(run_id: str, **options: JsonValue) -> InvokeRequest:
    """A request with these options of the scripted harness."""
    parameters = AgentParameters.model_validate(
        {"harness": {"kind": "scripted", "options": options}, "retry": {"base_ms": 0, "cap_ms": 0}}
    )
    return InvokeRequest(id=run_id, messages=(Message.of_text("user", "hi"),), parameters=parameters)


async def test_results_retries_tools_duplicates_and_dead_letters_are_counted_once_each(cluster: Cluster) -> None:
    meters = Meters()
    tool: JsonValue = {"name": "bash", "is_error": True}
    async with serving(scripted(cluster, meters)):
        await cluster.send(request("fine", text="hello", usage=USAGE))
        await cluster.send(request("again", text="at last", fail_attempts=1))
        await cluster.send(request("tool", text="after all", tools=[tool]))
        await cluster.send(request("broken", error="provider_auth"))
        for run_id in ("fine", "again", "tool", "broken"):
            await cluster.tail.result(run_id)
        await cluster.send(request("fine", text="hello", usage=USAGE))
        await cluster.send(request("last", text="bye"))
        await cluster.tail.result("last")
        await cluster.until_committed(6)

    assert meters.sums("agentstream.runs") == {
        (("agentstream.run.status", "completed"),): 4,
        (("agentstream.run.status", "failed"), ("error.type", "provider_auth")): 1,
    }
    assert meters.sums("agentstream.dead_letters") == {(("error.type", "provider_auth"),): 1}
    assert meters.sums("agentstream.duplicates") == {(): 1}
    assert sum(meters.sums("messaging.client.consumed.messages").values()) == 6
    assert sum(meters.sums("agentstream.retries").values()) == 1
    assert meters.sums("agentstream.attempts.voided") == {(("agentstream.reason", "retry"),): 1}
    assert meters.sums("agentstream.claims") == {(): 1}
    assert meters.sums("agentstream.takeovers") == {}
    assert meters.sums("agentstream.transaction.outcomes") == {(): 6}
    assert sum(meters.counts("messaging.process.duration").values()) == 5
    calls = meters.counts(names.MODEL_DURATION.name)
    tools = [labels for labels in calls if ("gen_ai.operation.name", "execute_tool") in labels]
    assert [dict(labels) for labels in tools] == [
        # The script plays a tool that the run was not allowed: its name is whatever the caller wrote.
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "_OTHER", "error.type": "tool_error"}
    ]
    assert sum(meters.sums(names.TOKEN_USAGE.name).values()) == 7 + 3
    assert sum(meters.counts(names.DELTA_DURATION.name).values()) > 5


async def test_gauges_show_what_runs_what_waits_and_how_long_it_will_take(cluster: Cluster) -> None:
    meters, harness = Meters(), GatedHarness()
    plan = replace(workers.plan_of(cluster, harness), meter_provider=meters.provider)
    async with workers.working(plan) as running:
        gauges = Gauges(running.worker, plan.harnesses)
        await cluster.submit("first", session="s")
        await harness.finished("first")
        await cluster.tail.result("first")
        for run_id in ("second", "third", "fourth"):
            await cluster.submit(run_id, session="s")
        await harness.started("second")
        await eventually(lambda: running.held == 3, "the others wait")
        gauges.look()

        assert meters.sums("agentstream.runs.in_flight") == {(): 1}
        assert meters.sums("agentstream.runs.waiting") == {(("messaging.destination.partition.id", "0"),): 2}
        learned = running.worker.engine.metrics.durations.expected()
        assert meters.sums("agentstream.work.waiting") == {(): 2 * learned}
        assert learned > 0
        assert meters.sums("agentstream.lag") == {(("messaging.destination.partition.id", "0"),): 3}
        assert meters.sums("agentstream.runs.oldest_age")[()] > 0
        assert meters.sums("agentstream.held")[()] > 0
        assert meters.sums("agentstream.partitions") == {
            (("agentstream.partition.state", "open"),): 1,
        }
        harness.finish_all()
        for run_id in ("second", "third", "fourth"):
            await cluster.tail.result(run_id)
