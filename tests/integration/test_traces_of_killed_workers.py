"""A worker killed with -9 exports nothing: the next owner writes what the log tells of its attempts."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import JsonValue

from agentstream.infra.compose import WorkerPlan
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas import span_names as names
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.inside import plan_of, serving
from tests.integration.tracing_fixtures import GIVEN
from tests.support.cluster import Cluster
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.otlp_values import SpanSeen
from tests.support.spans import assert_well_formed, tree
from tests.support.tracing import Healed, environment, exporting, of_trace, request
from tests.support.waiting import eventually

TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "text"}
HANGS: dict[str, JsonValue] = {"text": "one two", "tools": [TOOL], "hang": "mid_text"}
LOST_TREE = [
    "process invoke-requests !worker_lost",
    "  invoke_agent scripted !worker_lost",
    "    turn 1",
    "      chat",
    "      execute_tool read",
    "    turn 2 !worker_lost",
    "      chat !worker_lost",
]


@asynccontextmanager
async def worker(cluster: Cluster, receiver: OtlpReceiver) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, exporting to the receiver; at the end it is killed, if it still lives."""
    variables = {
        **os.environ,
        **environment(receiver),
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
        "AGENTSTREAM_GROUP_ID": cluster.group_id,
        "AGENTSTREAM_HARNESSES": "scripted",
        "AGENTSTREAM_SESSION_TIMEOUT_MS": "2000",
        "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "300",
        "AGENTSTREAM_HTTP_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentstream.infra.cli", "worker", env=variables
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_it_hangs(cluster: Cluster, attempts: int) -> None:
    """Wait until so many attempts have said their first word in their last turn, and stand as started."""

    def said() -> int:
        return len(
            {flush.attempt_id for flush in cluster.tail.events for event in flush.events if event.type == "part.delta"}
        )

    await cluster.tail.until(lambda: said() == attempts)
    await cluster.until_marked(1)


@pytest.mark.timeout(180)
async def test_each_lost_attempt_is_written_once_by_the_next_owner_and_linked_to(
    cluster: Cluster, receiver: OtlpReceiver, caller: RequestProducer
) -> None:
    await caller.submit(request("run", HANGS), GIVEN)
    for kills in (1, 2):
        async with worker(cluster, receiver) as killed:
            await until_it_hangs(cluster, kills)
            if kills == 2:
                # The first lost attempt is written by this worker, which will be killed in its turn.
                await receiver.until(lambda: len(lost(receiver)) == 1, "the first lost attempt is there")
            killed.kill()
    harnesses = {"scripted": Healed()}
    last = replace(
        plan_of(cluster.bootstrap_servers, cluster.topics.prefix, harnesses=harnesses),
        session_timeout_ms=2_000,
        heartbeat_interval_ms=300,
    )
    async with exporting(last, receiver) as plan:
        await finish(cluster, plan)
        await receiver.until(lambda: len(of_kind(receiver, "process")) == 3, "three owners' spans are there")
    spans = of_trace(receiver, GIVEN.trace_id)
    assert_well_formed(spans)
    assert [line.replace(cluster.topics.prefix, "") for line in tree(spans)] == [
        *LOST_TREE,
        *LOST_TREE,
        "process invoke-requests",
        "  invoke_agent scripted",
        "    turn 1",
        "      chat",
        "      execute_tool read",
        "    turn 2",
        "      chat",
        "  send assistant-messages",
    ]
    first, second, third = of_kind(receiver, "invoke_agent")
    (result,) = cluster.tail.results
    contexts = [flush.attempt_id for flush in cluster.tail.events]
    assert [first.attributes[names.ATTEMPT_ID], second.attributes[names.ATTEMPT_ID], result.attempt_id] == list(
        dict.fromkeys(contexts)
    )
    assert [link.span_id for link in third.links] == [second.span_id]
    assert third.links[0].attributes[names.LINK] == "lost_attempt"
    processes = of_kind(receiver, "process")
    assert [span.attributes.get(names.LOST) for span in processes] == [True, True, None]
    assert processes[2].attributes[names.STRIKES] == 2
    assert {link.span_id for link in processes[2].links} == {processes[0].links[0].span_id, second.span_id}
    assert second.end_ns >= processes[2].start_ns, "what was lost ends when it was taken over"


async def finish(cluster: Cluster, plan: WorkerPlan) -> None:
    async with serving(plan):
        await cluster.tail.result("run")
        await cluster.until_committed(1)


def of_kind(receiver: OtlpReceiver, kind: str, trace_id: str = GIVEN.trace_id) -> list[SpanSeen]:
    found = [span for span in of_trace(receiver, trace_id) if span.name.startswith(kind)]
    return sorted(found, key=lambda span: span.start_ns)


def lost(receiver: OtlpReceiver) -> list[SpanSeen]:
    return [span for span in of_kind(receiver, "process") if span.attributes.get(names.LOST)]


async def test_a_request_without_a_trace_has_one_with_all_its_owners(cluster: Cluster, receiver: OtlpReceiver) -> None:
    producer = idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES)
    async with producer:
        await producer.send_and_wait(cluster.topics.invoke_requests, request("run", HANGS).to_bytes(), partition=0)
    async with worker(cluster, receiver) as killed:
        await until_it_hangs(cluster, 1)
        killed.kill()
    quick = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, harnesses={"scripted": Healed()})
    async with exporting(replace(quick, session_timeout_ms=2_000, heartbeat_interval_ms=300), receiver) as plan:
        await finish(cluster, plan)
        (result,) = cluster.tail.results
        trace_id = result.trace_id or ""
        await eventually(lambda: len(of_kind(receiver, "process", trace_id)) == 2, "both owners' spans are there")
    assert [span.parent_id for span in of_kind(receiver, "process", trace_id)] == [None, None]
    before, after = of_kind(receiver, "invoke_agent", trace_id)
    assert [link.span_id for link in after.links] == [before.span_id]


@pytest.mark.timeout(180)
async def test_a_request_that_kills_its_workers_at_once_shows_what_was_tried(
    cluster: Cluster, receiver: OtlpReceiver, caller: RequestProducer
) -> None:
    # It leaves no event on the log: its trace had a `process` span with `crash_limit`, and not one attempt.
    await caller.submit(request("run", {"text": "", "crash": "worker"}), GIVEN)
    while not cluster.tail.results:
        async with worker(cluster, receiver) as doomed:
            ended = asyncio.create_task(doomed.wait())
            answered = asyncio.create_task(cluster.tail.result("run"))
            await asyncio.wait({ended, answered}, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                await receiver.until(lambda: len(of_kind(receiver, "process")) >= 2, "both are there")
                doomed.terminate()
            await ended
            answered.cancel()
    (result,) = cluster.tail.results
    assert (result.error and result.error.code, result.crashes) == ("crash_limit", 3)
    spans = of_trace(receiver, GIVEN.trace_id)
    assert_well_formed(spans)
    assert [line.replace(cluster.topics.prefix, "") for line in tree(spans)][-5:] == [
        "process invoke-requests !worker_lost",
        "  invoke_agent scripted !worker_lost",
        "process invoke-requests !crash_limit",
        "  send assistant-messages",
        "  send dead-letters",
    ]
    *_, before, last = of_kind(receiver, "process")
    assert last.attributes[names.STRIKES] == 3
    (told,) = (span for span in of_kind(receiver, "invoke_agent") if span.parent_id == before.span_id)
    assert told.span_id in {link.span_id for link in last.links}
    assert told.attributes[names.CLAIM] == before.attributes[names.CLAIM]
