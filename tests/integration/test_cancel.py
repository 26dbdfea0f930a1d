"""Cancellation over a real Kafka: before the request is read, while it waits, while it runs, and across owners."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import JsonValue

from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer, Submitted
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, CancelRun, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.audit import Json, Log, read_log, read_topic, violations
from tests.chaos.fleet import Fleet, fleet_of
from tests.chaos.inside import plan_of, serving

NOBODY = b'{"run_id":"nobody"}'
HANGS: dict[str, JsonValue] = {"text": "some words first", "hang": "mid_text"}


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_of(kafka, topics, tmp_path, workers=0, partitions=1) as no_workers:
        yield no_workers


@pytest.fixture
async def caller(fleet: Fleet) -> AsyncIterator[RequestProducer]:
    async with RequestProducer(
        lambda: idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES), fleet.topics
    ) as producer:
        yield producer


async def submit(caller: RequestProducer, run_id: str, options: dict[str, JsonValue] | None = None) -> Submitted:
    parameters = AgentParameters(harness=HarnessChoice(kind="scripted", options=options or {}))
    messages = (Message.of_text("user", "hi"),)
    return await caller.submit(InvokeRequest(id=run_id, session_id="s", messages=messages, parameters=parameters))


async def started(fleet: Fleet, run_id: str) -> None:
    """Wait until the run has begun, as its deltas tell."""
    seen: list[str] = []
    while run_id not in seen:
        seen = [line.body["run_id"] for line in await read_topic(fleet.bootstrap_servers, fleet.topics.stream_deltas)]


async def log_of(fleet: Fleet, *run_ids: str) -> tuple[Log, dict[str, Json]]:
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    assert violations(log, run_ids) == []
    return log, {line.body["run_id"]: line.body for line in log.results}


async def test_a_run_under_way_ends_as_cancelled_by_whom_and_why(fleet: Fleet, caller: RequestProducer) -> None:
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as results:
        await submit(caller, "hangs", HANGS)
        await submit(caller, "next")
        await started(fleet, "hangs")
        await caller.cancel(CancelRun(run_id="hangs", reason="not needed", requested_by="ada"))
        await results.until_run("hangs")
        await results.until_run("next")
    _, by_run = await log_of(fleet, "hangs", "next")
    assert by_run["hangs"]["status"] == "cancelled"
    assert by_run["hangs"]["error"]["code"] == "cancelled"
    assert by_run["hangs"]["error"]["detail"] == "cancelled by ada: not needed"
    assert by_run["next"]["status"] == "completed"


async def test_a_run_that_waits_ends_at_once_and_those_around_it_stay(fleet: Fleet, caller: RequestProducer) -> None:
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as results:
        await submit(caller, "hangs", HANGS)
        await submit(caller, "waits")
        await submit(caller, "last")
        await started(fleet, "hangs")
        await caller.cancel(CancelRun(run_id="waits"))
        # Its result comes although the run before it still hangs: it owes nobody an order.
        await results.until_run("waits")
        await caller.cancel(CancelRun(run_id="hangs"))
        await results.until_run("last")
    _, by_run = await log_of(fleet)
    assert [by_run[name]["status"] for name in ("hangs", "waits", "last")] == ["cancelled", "cancelled", "completed"]
    assert by_run["waits"]["attempt"] == 0


async def test_a_cancel_before_the_request_and_before_the_worker_holds(fleet: Fleet, caller: RequestProducer) -> None:
    await caller.cancel(CancelRun(run_id="early"))
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as results:
        await submit(caller, "early")
        await submit(caller, "other")
        await results.until(2)
    log, by_run = await log_of(fleet, "early", "other")
    assert by_run["early"]["status"] == "cancelled"
    assert by_run["other"]["status"] == "completed"
    assert {line.body["run_id"] for line in log.deltas} == {"other"}, "the cancelled run never started"


async def test_a_cancel_while_nobody_owns_the_partition_holds_for_the_next_owner(
    fleet: Fleet, caller: RequestProducer
) -> None:
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix), grace_s=0.1):
        await submit(caller, "hangs", HANGS)
        await started(fleet, "hangs")
    await caller.cancel(CancelRun(run_id="hangs", reason="while nobody was there"))
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as results:
        await results.until(1)
    _, by_run = await log_of(fleet, "hangs")
    assert by_run["hangs"]["status"] == "cancelled"


async def test_a_second_cancel_and_one_of_a_finished_run_change_nothing(fleet: Fleet, caller: RequestProducer) -> None:
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as results:
        await submit(caller, "done")
        await results.until_run("done")
        await caller.cancel(CancelRun(run_id="done"))
        await submit(caller, "hangs", HANGS)
        await started(fleet, "hangs")
        for reason in ("first", "second"):
            await caller.cancel(CancelRun(run_id="hangs", reason=reason))
        await results.until_run("hangs")
        await submit(caller, "after")
        await results.until_run("after")
    log, by_run = await log_of(fleet, "done", "hangs", "after")
    assert len(log.results) == 3
    assert by_run["done"]["status"] == "completed"
    assert by_run["hangs"]["error"]["detail"] == "cancelled: first"


async def test_malformed_and_unknown_control_records_are_ignored(fleet: Fleet, caller: RequestProducer) -> None:
    async with AIOKafkaProducer(bootstrap_servers=fleet.bootstrap_servers) as producer:
        for value in (
            b"",
            b"\x00\x00\x00\x00\x01",
            b"{",
            b"[]",
            b"{}",
            b'{"run_id":"../x"}',
            b"\xff",
            b'{"run_id":"nobody"}',
        ):
            await producer.send_and_wait(fleet.topics.control, value)
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)) as worker, fleet.results() as results:
        await submit(caller, "runs")
        await results.until(1)
        assert worker.engine.control.ignored == 7
    _, by_run = await log_of(fleet, "runs")
    assert by_run["runs"]["status"] == "completed"
