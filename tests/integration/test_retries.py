"""Waits between attempts as a request asks for them, over a real Kafka."""

from dataclasses import replace

from pydantic import JsonValue

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.retries import RetryCeilings
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.events import RunRetrying
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest, Retry
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.inside import plan_of, serving
from tests.support.cluster import Cluster

CEILINGS = RetryCeilings(base_ms=50, cap_ms=0, retry_after_ms=7)


async def test_a_request_gets_the_waits_it_asks_for_and_not_more_than_the_worker_allows(cluster: Cluster) -> None:
    options: dict[str, JsonValue] = {"kind": "scripted", "options": {"text": "at last", "fail_attempts": 2}}
    parameters = AgentParameters.model_validate({"harness": options, "retry": {"base_ms": 60_000, "cap_ms": 60_000}})
    request = InvokeRequest(id="run", messages=(Message.of_text("user", "hi"),), parameters=parameters)
    allowed = {"scripted": ScriptedHarness()}
    config = WorkerAgentConfig(harnesses=allowed, default_harness="scripted", retry=CEILINGS)
    async with RequestProducer(
        lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), cluster.topics
    ) as producer:
        await producer.submit(request)
    async with serving(replace(plan_of(cluster.bootstrap_servers, cluster.topics.prefix), agent_config=config)):
        result = await cluster.tail.result("run")
    assert (result.status, result.attempt, result.text) == ("completed", 3, "at last")
    assert result.parameters.retry == Retry(base_ms=50, cap_ms=0, retry_after_ms=7)
    waits = [
        event.delay_ms for flush in cluster.tail.events for event in flush.events if isinstance(event, RunRetrying)
    ]
    assert waits == [0, 0]
