"""Callers that stop a run: by asking, by leaving, and with `cancel_on_exit=False` not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentstream.consumers.client import AgentClient, RequestRefused, Run, RunTimeout
from agentstream.infra.topics import apply_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics
from tests.chaos.audit import read_topic
from tests.support.callers import HANGS, answered, playing
from tests.support.frames import Api
from tests.support.proxy import Hold, KafkaProxy
from tests.support.waiting import WAIT_SECONDS


@pytest.fixture
async def client(kafka: str, topics: str) -> AsyncIterator[AgentClient]:
    async with answered(kafka, topics, partitions=2) as one:
        yield one


async def begun(run: Run) -> None:
    async for event in run:
        if getattr(event, "type", "") == "part.delta":
            return


async def test_a_run_is_cancelled_by_its_caller_who_says_why(client: AgentClient) -> None:
    async with client.stream("hi", parameters=HANGS, timeout=WAIT_SECONDS) as run:
        await begun(run)
        await run.cancel("had enough", requested_by="ada")
        result = await run.result()
    assert result.status == "cancelled"
    assert result.error is not None
    assert result.error.detail == "cancelled by ada: had enough"


async def test_anybody_cancels_a_run_by_its_id(client: AgentClient) -> None:
    submitted = await client.submit("hi", parameters=HANGS)
    await client.cancel(submitted.run_id)
    assert (await client.wait(submitted, timeout=WAIT_SECONDS)).status == "cancelled"
    with pytest.raises(RequestRefused, match="run_id"):
        await client.cancel("no id at all")


class Enough(Exception):
    pass


async def leave_by_an_exception(client: AgentClient, runs: list[Run]) -> None:
    async with client.stream("hi", parameters=HANGS) as run:
        runs.append(run)
        await begun(run)
        raise Enough


async def leave_by_running_out_of_patience(client: AgentClient, runs: list[Run]) -> None:
    async with client.stream("hi", parameters=HANGS, timeout=2.0) as run:
        runs.append(run)
        await run.result()


async def leave_quietly(client: AgentClient, runs: list[Run]) -> None:
    async with client.stream("hi", parameters=HANGS) as run:
        runs.append(run)
        await begun(run)


async def leave_by_cancellation(client: AgentClient, runs: list[Run]) -> None:
    began = asyncio.Event()

    async def follow() -> None:
        async with client.stream("hi", parameters=HANGS) as run:
            runs.append(run)
            await begun(run)
            began.set()
            await run.result()

    task = asyncio.create_task(follow())
    await began.wait()
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("leave", "leaves_with"),
    [
        (leave_by_an_exception, Enough),
        (leave_by_running_out_of_patience, RunTimeout),
        (leave_quietly, None),
        (leave_by_cancellation, asyncio.CancelledError),
    ],
)
async def test_leaving_early_cancels_the_run_however_one_leaves(
    client: AgentClient, leave: object, leaves_with: type[BaseException] | None
) -> None:
    runs: list[Run] = []
    assert callable(leave)
    if leaves_with is None:
        await leave(client, runs)
    else:
        with pytest.raises(leaves_with):
            await leave(client, runs)
    result = await client.wait(runs[0].submitted, timeout=WAIT_SECONDS)
    assert result.status == "cancelled"
    assert result.error is not None
    assert result.error.detail == "cancelled: its caller stopped following it"


@pytest.mark.parametrize("cancel_on_exit", [True, False])
async def test_a_caller_who_is_cancelled_while_he_sends_cancels_the_run_unless_it_is_to_go_on(
    kafka: str, topics: str, cancel_on_exit: bool
) -> None:
    """The brokers have the request, he has not heard of it: it would run with nobody who knows its id."""
    names = Topics(prefix=topics)
    await apply_topics(KafkaConnection(bootstrap_servers=kafka), names, partitions=1)
    async with KafkaProxy(kafka) as proxy, AgentClient(proxy.bootstrap_servers, topic_prefix=topics) as client:

        async def follow() -> None:
            async with client.stream("hi", cancel_on_exit=cancel_on_exit):
                raise AssertionError("nobody told it that the request was sent")

        answers = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
        task = asyncio.create_task(follow())
        await answers.hit()
        task.cancel()
        answers.lift()
        with pytest.raises(asyncio.CancelledError):
            await task
    (sent,) = await read_topic(kafka, names.invoke_requests)
    cancelled = [line.body["run_id"] for line in await read_topic(kafka, names.control)]
    assert cancelled == ([sent.body["id"]] if cancel_on_exit else [])


async def test_a_run_goes_on_without_its_follower_if_that_was_asked_for(client: AgentClient, topics: str) -> None:
    slow = playing(text="one two three four", delay_ms=200)
    async with client.stream("hi", parameters=slow, cancel_on_exit=False) as run:
        await begun(run)
    assert (await client.wait(run.submitted, timeout=WAIT_SECONDS)).status == "completed"


async def test_leaving_after_the_result_asks_for_nothing(client: AgentClient, kafka: str, topics: str) -> None:
    async with client.stream("hi", parameters=playing(text="done"), timeout=WAIT_SECONDS) as run:
        assert (await run.result()).status == "completed"
    assert await read_topic(kafka, Topics(prefix=topics).control) == []
