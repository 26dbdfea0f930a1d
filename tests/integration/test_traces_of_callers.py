"""Where a trace begins: callers, through the client or the command, with and without an OpenTelemetry of their own."""

import asyncio
import json
import os
import sys

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from opentelemetry.trace import Tracer

from agentstream.consumers.client import AgentClient
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas import span_names as names
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.trace import TraceContext
from tests.integration.tracing_fixtures import GIVEN
from tests.support.cluster import Cluster
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.spans import Recorder, by_name
from tests.support.tracing import environment


def a_tracer(recorder: Recorder) -> Tracer:
    return recorder.provider.get_tracer("the caller's program")


def client_of(cluster: Cluster, tracer: Tracer | None = None) -> AgentClient:
    return AgentClient(connection=cluster.connection, topic_prefix=cluster.topics.prefix, tracer=tracer)


async def test_what_a_client_sends_is_a_span_below_the_callers_current_one(cluster: Cluster) -> None:
    recorder = Recorder()
    async with client_of(cluster, a_tracer(recorder)) as client:
        with a_tracer(recorder).start_as_current_span("its work"):
            submitted = await client.submit("hi", session_id="s")
    work, sent = by_name(recorder.spans, "its work"), by_name(recorder.spans, f"send {cluster.topics.invoke_requests}")
    assert (sent.kind, sent.parent_id, sent.trace_id) == ("producer", work.span_id, work.trace_id)
    assert (submitted.trace.trace_id, submitted.trace.span_id) == (sent.trace_id, sent.span_id)
    assert {names.SESSION_ID: "s", names.RUN_ID: submitted.run_id}.items() <= sent.attributes.items()


async def test_a_trace_that_is_given_wins_over_the_current_one(cluster: Cluster) -> None:
    recorder = Recorder()
    async with client_of(cluster, a_tracer(recorder)) as client:
        with a_tracer(recorder).start_as_current_span("its work"):
            submitted = await client.submit("hi", trace=GIVEN)
    sent = by_name(recorder.spans, f"send {cluster.topics.invoke_requests}")
    assert (sent.parent_id, sent.trace_id) == (GIVEN.span_id, GIVEN.trace_id)
    assert submitted.trace == TraceContext(trace_id=GIVEN.trace_id, span_id=sent.span_id, baggage="c=d")


async def test_without_a_tracer_a_request_begins_a_trace_or_goes_on_in_the_current_one(cluster: Cluster) -> None:
    tracer = a_tracer(Recorder())
    async with client_of(cluster) as client:
        first, second = await client.submit("hi"), await client.submit("hi")
        with tracer.start_as_current_span("its work") as work:
            inside = await client.submit("hi")
    assert first.trace.trace_id != second.trace.trace_id
    assert int(inside.trace.span_id, 16) == work.get_span_context().span_id


async def test_a_request_that_could_not_be_sent_is_an_error_in_the_trace(cluster: Cluster) -> None:
    recorder = Recorder()
    async with RequestProducer(
        lambda: idempotent_producer(cluster.connection, max_request_size=1_000), cluster.topics, a_tracer(recorder)
    ) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.submit(InvokeRequest(messages=(Message.of_text("user", "x" * 5_000),)))
    sent = by_name(recorder.spans, f"send {cluster.topics.invoke_requests}")
    assert (sent.status, sent.attributes[names.ERROR_TYPE]) == ("error", "MessageSizeTooLargeError")


async def test_the_command_exports_where_the_environment_says(cluster: Cluster, receiver: OtlpReceiver) -> None:
    variables = {
        **os.environ,
        **environment(receiver),
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.cli", "invoke", "hi", "--no-wait", "--json"),
        env=variables,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    sent = receiver.named(f"send {cluster.topics.invoke_requests}")
    assert sent.resource["service.name"] == "agentstream-client"
    told = json.loads(out)["submitted"]
    assert (sent.attributes[names.RUN_ID], sent.trace_id) == (told["run_id"], told["trace_id"])
