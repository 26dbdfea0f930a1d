"""Callers and a real worker, over a real Kafka: what was promised to callers holds from end to end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentstream.consumers.client import AgentClient, Run, RunFailed
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import InvokeRequest
from tests.support.callers import answered, kinds, playing
from tests.support.waiting import WAIT_SECONDS


@pytest.fixture
async def client(kafka: str, topics: str) -> AsyncIterator[AgentClient]:
    """A client, and a worker that plays what requests say."""
    async with answered(kafka, topics, partitions=4) as one:
        yield one


async def followed(run: Run) -> list[str]:
    return kinds([event async for event in run])


async def test_a_stranger_says_hi_and_sees_the_answer_grow(client: AgentClient) -> None:
    async with client.stream("hi", session_id="s1", parameters=playing(text="one two three"), timeout=60) as run:
        seen = await followed(run)
        result = await run.result()
    assert seen[0] == "run.started"
    assert seen[-1] == "run.ended"
    assert result.status == "completed"
    assert result.text == run.transcript.text == "one two three"
    assert result.messages == run.transcript.messages()
    assert run.transcript.rule.complete
    assert (result.run_id, result.session_id, result.trace_id) == (run.run_id, "s1", run.trace_id)
    assert result.partition == run.submitted.position.partition


async def test_a_hundred_callers_at_once_each_get_their_own_answer_whole(client: AgentClient) -> None:
    async def call(number: int) -> None:
        text = " ".join(f"{number}-{word}" for word in range(10))
        async with client.stream("hi", parameters=playing(text=text, delay_ms=2), timeout=100) as run:
            await followed(run)
            result = await run.result()
        assert result.text == run.transcript.text == text
        assert run.transcript.rule.complete
        assert not run.lagged

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(call(number))


async def test_invoking_waiting_and_following_find_the_same_result(client: AgentClient) -> None:
    submitted = await client.submit([{"role": "user", "content": "hi"}], parameters=playing(text="ok"))
    waited = await client.wait(submitted, timeout=60)
    async with client.follow(submitted, timeout=60) as run:
        assert (await followed(run))[-1] == "run.ended"
        assert await run.result() == waited
    request = InvokeRequest(messages=(Message.of_text("user", "hi"),), parameters=playing(text="ok"))
    invoked = await client.invoke(request, timeout=60)
    assert invoked.messages[-1].text == waited.text == "ok"
    assert invoked.run_id != waited.run_id


async def test_a_retried_run_shows_the_attempt_that_counts(client: AgentClient) -> None:
    async with client.stream("hi", parameters=playing(text="third time", fail_attempts=2), timeout=60) as run:
        seen = await followed(run)
        result = await run.result()
    assert seen.count("run.retrying") == seen.count("voided") == 2
    last = len(seen) - 1 - seen[::-1].index("voided")
    assert seen[last + 1] == "run.started"
    assert seen[-1] == "run.ended"
    assert result.attempt == 3
    assert run.transcript.messages() == result.messages


async def test_the_runs_of_a_session_end_in_the_order_in_which_they_were_sent(client: AgentClient) -> None:
    submitted = [await client.submit("hi", session_id="one", parameters=playing(text=f"{n}")) for n in range(20)]
    results = await asyncio.gather(*(client.wait(run, timeout=WAIT_SECONDS) for run in submitted))
    assert [result.text for result in results] == [str(number) for number in range(20)]
    assert sorted(result.ended_at for result in results) == [result.ended_at for result in results]


async def test_what_fails_is_a_result_and_a_refusal_is_one_too(client: AgentClient) -> None:
    failed = await client.invoke("hi", parameters=playing(text="some", error="max_turns"), timeout=60)
    assert failed.status == "failed"
    with pytest.raises(RunFailed, match=r"harness_not_allowed|unknown_harness"):
        await client.invoke("hi", parameters={"harness": {"kind": "nobody"}}, timeout=60, check=True)
