"""Runs that wait, over a real Kafka: what their readers see, and that nothing else changes for them."""

from collections.abc import AsyncIterator

import pytest

from agentstream.consumers.client import AgentClient, Voided
from agentstream.infra.topics import apply_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.events import RunQueued
from agentstream.schemas.topics import Topics
from tests.chaos.audit import read_log, violations
from tests.chaos.inside import plan_of, serving
from tests.support.callers import HANGS, playing
from tests.support.waiting import WAIT_SECONDS

QUICK = playing(text="one two")


@pytest.fixture
async def client(kafka: str, topics: str) -> AsyncIterator[AgentClient]:
    await apply_topics(KafkaConnection(bootstrap_servers=kafka), Topics(prefix=topics), partitions=1)
    async with AgentClient(kafka, topic_prefix=topics) as one:
        yield one


async def test_a_run_that_waits_says_so_and_goes_on_in_the_same_attempt(
    client: AgentClient, kafka: str, topics: str
) -> None:
    seen: list[str] = []
    ahead: list[int] = []
    async with serving(plan_of(kafka, topics)):
        first = await client.submit("hi", session_id="s", parameters=HANGS)
        cancelled = await client.submit("hi", session_id="s", parameters=QUICK)
        async with client.stream("hi", session_id="s", parameters=QUICK, timeout=WAIT_SECONDS) as run:
            async for event in run:
                seen.append("voided" if isinstance(event, Voided) else event.type)
                if isinstance(event, RunQueued):
                    ahead.append(event.ahead)
                    await client.cancel(cancelled.run_id)
                    await client.cancel(first.run_id)
            result = await run.result()
        never_began = await client.wait(cancelled, timeout=WAIT_SECONDS)
        await client.wait(first, timeout=WAIT_SECONDS)
    assert ahead == [2]
    assert seen[:2] == ["run.queued", "run.started"]
    assert seen[-1] == "run.ended"
    assert "voided" not in seen
    assert (result.status, result.deltas, result.last_seq) == ("completed", "complete", len(seen) - 1)
    assert (never_began.status, never_began.attempt, never_began.attempt_id) == ("cancelled", 0, None)
    log = await read_log(kafka, Topics(prefix=topics), f"{topics}workers")
    assert violations(log, [first.run_id, cancelled.run_id, result.run_id]) == []


async def test_a_run_that_waited_with_a_worker_that_left_begins_with_the_next_one(
    client: AgentClient, kafka: str, topics: str
) -> None:
    async with client.stream("hi", session_id="s", parameters=HANGS, timeout=WAIT_SECONDS) as first:
        second = await client.submit("hi", session_id="s", parameters=QUICK)
        async with client.follow(second, timeout=WAIT_SECONDS) as run:
            async with serving(plan_of(kafka, topics), grace_s=0.1):
                assert (await anext(run)).type == "run.queued"  # type: ignore[union-attr]
            async with serving(plan_of(kafka, topics)):
                await first.cancel()
                rest = [item async for item in run]
                result = await run.result()
    # What the next worker may say first, if the run waits over a second with it as well, is that it waits.
    types = [item.type for item in rest if not isinstance(item, Voided)]
    assert isinstance(rest[0], Voided)
    assert types[types.index("run.started") :][-1] == "run.ended"
    assert (result.status, result.deltas, result.crashes) == ("completed", "complete", 0)
    log = await read_log(kafka, Topics(prefix=topics), f"{topics}workers")
    assert violations(log, [first.run_id, second.run_id]) == []
