"""Traces of requests that never ran, that nobody traced, that were given back: nothing is missing, nothing is stale."""

from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentstream.infra.compose import WorkerPlan
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas import span_names as names
from agentstream.schemas.headers import header_text, last_wins
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from agentstream.schemas.trace import TraceContext
from tests.chaos.inside import plan_of, serving
from tests.integration.tracing_fixtures import GIVEN, arrived
from tests.support.cluster import Cluster, cluster_of
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.spans import tree
from tests.support.tracing import Healed, exporting, of_trace, request


async def test_what_was_never_a_run_has_its_span_too(
    cluster: Cluster, plan: WorkerPlan, receiver: OtlpReceiver
) -> None:
    producer = idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES)
    async with producer:
        for value in (
            b"not json",
            b'{"id":"named","messages":[]}',
            b'{"id":"a","messages":[{"role":"user","content":"x"}]}',
        ):
            await producer.send_and_wait(cluster.topics.invoke_requests, value, partition=0)
        await producer.send_and_wait(
            cluster.topics.invoke_requests, b'{"id":"a","messages":[{"role":"user","content":"x"}]}', partition=0
        )
        async with serving(plan):
            await cluster.tail.until(lambda: len(cluster.tail.dead_letters) + len(cluster.tail.results) == 4)
            await cluster.until_committed(4)
    process = f"process {cluster.topics.invoke_requests}"
    await receiver.until(lambda: sum(span.name == process for span in receiver.spans) == 4, "all four are there")
    said = {
        span.attributes[names.OFFSET]: (
            span.status,
            span.attributes.get(names.ERROR_TYPE),
            span.attributes.get(names.RUN_ID),
            span.attributes.get(names.DUPLICATE),
        )
        for span in receiver.spans
        if span.name == process
    }
    headers = [last_wins(letter.headers) for letter in cluster.tail.dead_letters]
    named = {header_text(each, "dlq-error-code"): header_text(each, "dlq-run-id") for each in headers}
    assert said == {
        # The id that `dead-letters list` shows: `agentstream trace` finds it by that.
        0: ("error", "malformed_json", named["malformed_json"], None),
        1: ("error", "schema_invalid", "named", None),
        2: ("unset", None, "a", None),
        3: ("unset", None, "a", True),
    }
    assert len({span.trace_id for span in receiver.spans if span.name == process}) == 4
    sent = {span.span_id for span in receiver.spans if span.name == f"send {cluster.topics.dead_letters}"}
    letters = [TraceContext.parse(each) for each in headers]
    assert len(letters) == 2
    assert {letter.span_id for letter in letters if letter is not None} == sent


async def test_a_hundred_requests_without_a_trace_have_a_hundred_traces_and_each_result_names_its_own(
    cluster: Cluster, plan: WorkerPlan, receiver: OtlpReceiver
) -> None:
    producer = idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES)
    async with producer:
        for number in range(100):
            asked = request(f"run-{number}", {"text": f"{number}", "delay_ms": 1}, session_id=f"s{number % 30}")
            await producer.send_and_wait(cluster.topics.invoke_requests, asked.to_bytes(), partition=0)
    async with serving(plan):
        await cluster.tail.all_results(*(f"run-{number}" for number in range(100)))
        await cluster.until_committed(100)
    agents = {result.run_id: result.trace_id for result in cluster.tail.results}
    assert len(set(agents.values())) == 100
    process = f"process {cluster.topics.invoke_requests}"
    await receiver.until(lambda: sum(span.name == process for span in receiver.spans) == 100, "all are there")
    for run_id, trace_id in agents.items():
        spans = of_trace(receiver, trace_id)
        assert {span.attributes.get(names.RUN_ID) for span in spans if not span.name.startswith("send")} == {run_id}
        assert len(tree(spans)) == 5, "process, agent, turn, chat, send"


@pytest.mark.parametrize("header", [b"00-garbage", b"", b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01"])
async def test_a_malformed_traceparent_begins_a_new_trace(
    cluster: Cluster, plan: WorkerPlan, receiver: OtlpReceiver, header: bytes
) -> None:
    producer = idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES)
    asked = request("run", {"text": "hi"})
    async with producer:
        await producer.send_and_wait(
            cluster.topics.invoke_requests, asked.to_bytes(), partition=0, headers=[("traceparent", header)]
        )
    async with serving(plan):
        result = await cluster.tail.result("run")
        await cluster.until_committed(1)
    assert (await arrived(cluster, receiver, result.trace_id or ""))[0] == "process invoke-requests"


async def test_an_unsampled_trace_is_not_exported_and_its_flag_goes_on(
    cluster: Cluster, plan: WorkerPlan, receiver: OtlpReceiver
) -> None:
    unsampled = replace(GIVEN, flags="00")
    async with RequestProducer(
        lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), cluster.topics
    ) as caller:
        await caller.submit(request("unseen", {"text": "hi"}), unsampled)
        await caller.submit(request("seen", {"text": "hi"}))
    async with serving(plan):
        await cluster.tail.all_results("unseen", "seen")
        await cluster.until_committed(2)
    seen = next(result for result in cluster.tail.results if result.run_id == "seen")
    await arrived(cluster, receiver, seen.trace_id or "")
    assert of_trace(receiver, GIVEN.trace_id) == []
    flags = {
        found.flags
        for record in (*cluster.tail.of("stream_deltas"), *cluster.tail.of("assistant_messages"))
        if (found := TraceContext.parse(last_wins(record.headers))) and found.trace_id == GIVEN.trace_id
    }
    assert flags == {"00"}


async def test_a_worker_that_stops_closes_and_exports_what_it_gives_back(
    cluster: Cluster, plan: WorkerPlan, caller: RequestProducer, receiver: OtlpReceiver
) -> None:
    started = await caller.submit(request("started", {"text": "one two", "hang": "mid_text"}, session_id="s"))
    waits = await caller.submit(request("waits", {"text": "hi"}, session_id="s"))
    async with serving(plan, grace_s=0.1):
        await cluster.tail.until(lambda: len(cluster.tail.events) > 1)
    assert await arrived(cluster, receiver, started.trace.trace_id) == [
        "send invoke-requests",
        "  process invoke-requests !draining",
        "    invoke_agent scripted !draining",
        "      turn 1 !draining",
        "        chat !draining",
    ]
    assert await arrived(cluster, receiver, waits.trace.trace_id) == [
        "send invoke-requests",
        "  process invoke-requests",
    ]
    (given_back,) = (span for span in of_trace(receiver, waits.trace.trace_id) if span.name.startswith("process"))
    assert given_back.attributes[names.ENDED_BY] == "draining"


async def test_the_callers_current_span_is_the_parent_of_what_it_sends(cluster: Cluster) -> None:
    # A program with its own OpenTelemetry needs no argument of ours for its traces to go on here.
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("the caller's program")
    with tracer.start_as_current_span("its work") as span:
        submitted = await cluster.submit("run")
    context = span.get_span_context()
    assert submitted.trace.trace_id == f"{context.trace_id:032x}"
    assert submitted.trace.span_id == f"{context.span_id:016x}"


async def test_a_run_whose_partition_moves_goes_on_in_its_trace(engine_kafka: str, topics: str) -> None:
    with otlp_receiver() as receiver:
        async with cluster_of(engine_kafka, topics, partitions=2) as cluster:
            first = plan_of(cluster.bootstrap_servers, cluster.topics.prefix)
            second = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, harnesses={"scripted": Healed()})
            producer = idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES)
            async with producer:
                for number in (0, 1):
                    asked = request(f"run-{number}", {"text": "one two", "hang": "mid_text"}).to_bytes()
                    await producer.send_and_wait(cluster.topics.invoke_requests, asked, partition=number)
            async with exporting(first, receiver) as one, exporting(second, receiver) as two, serving(one, grace_s=0.1):
                await cluster.tail.until(lambda: said_something(cluster) == 2)
                async with serving(two):
                    await cluster.tail.until(lambda: len(cluster.tail.results) == 1)
                    (result,) = cluster.tail.results
                    await cluster.until_committed(1, result.partition)
                    trace_id = result.trace_id or ""
                    await receiver.until(
                        lambda: sum(span.name.startswith("process") for span in of_trace(receiver, trace_id)) == 2,
                        "both owners' spans are there",
                    )
            assert result.crashes == 0
            lost, done = (line.replace(topics, "") for line in tree(of_trace(receiver, trace_id)) if "process" in line)
            assert (lost, done) == ("process invoke-requests !partition_lost", "process invoke-requests")
            assert "  invoke_agent scripted !partition_lost" in tree(of_trace(receiver, trace_id))


def said_something(cluster: Cluster) -> int:
    said = (flush.run_id for flush in cluster.tail.events for event in flush.events if event.type == "part.delta")
    return len(set(said))
