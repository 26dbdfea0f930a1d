"""A request that kills its worker: it ends as `crash_limit`, and its neighbours all complete."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.audit import Log, read_log, violations
from tests.chaos.fleet import Fleet, fleet_of

NEIGHBOURS = 12
SLOW: dict[str, JsonValue] = {"text": "a word or two", "delay_ms": 300}


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_of(kafka, topics, tmp_path, workers=1, partitions=2) as one:
        yield one


async def keep_one_worker_alive(fleet: Fleet) -> None:
    """What systemd or Kubernetes does."""
    while True:
        await fleet.workers[-1].wait()
        await fleet.start_worker()


async def submit(fleet: Fleet, requests: dict[str, dict[str, JsonValue]]) -> None:
    async with RequestProducer(
        lambda: idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES), fleet.topics
    ) as producer:
        for run_id, options in requests.items():
            parameters = AgentParameters(harness=HarnessChoice(kind="scripted", options=options))
            messages = (Message.of_text("user", "hi"),)
            await producer.submit(InvokeRequest(id=run_id, messages=messages, parameters=parameters))


async def work_through(fleet: Fleet, requests: dict[str, dict[str, JsonValue]]) -> Log:
    supervisor = asyncio.create_task(keep_one_worker_alive(fleet))
    try:
        async with fleet.results() as results:
            await submit(fleet, requests)
            await results.until(len(requests))
    finally:
        supervisor.cancel()
        await asyncio.wait({supervisor})
    fleet.workers[-1].terminate()
    await fleet.workers[-1].wait()
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    assert violations(log, requests) == []
    return log


@pytest.mark.timeout(180)
async def test_a_request_that_kills_its_worker_is_given_up_and_its_neighbours_complete(fleet: Fleet) -> None:
    neighbours: dict[str, dict[str, JsonValue]] = {f"neighbour-{number}": SLOW for number in range(NEIGHBOURS)}
    log = await work_through(fleet, {**neighbours, "killer": {"crash": "worker"}})
    results = {line.body["run_id"]: line.body for line in log.results}
    assert results["killer"]["error"]["code"] == "crash_limit"
    assert results["killer"]["crashes"] == 3
    assert [results[name]["error"] for name in neighbours if results[name]["status"] != "completed"] == []
    assert max(results[name]["crashes"] for name in neighbours) <= 1, "a neighbour lost more than the first crash"
    started = Counter(
        line.body["run_id"] for line in log.deltas for event in line.body["events"] if event["type"] == "run.started"
    )
    assert max(started[name] for name in neighbours) <= 2
    (letter,) = log.dead_letters
    assert letter.headers["dlq-error-code"] == "crash_limit"
