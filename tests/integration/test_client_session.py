"""Conversations over a real Kafka: the history is kept, sent, and found again on the log."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaProducer

from agentstream.consumers.client import (
    AgentClient,
    AgentSession,
    HistoryLost,
    RequestRefused,
    RunTimeout,
    SessionBusy,
    SessionUnknown,
    recorded,
)
from agentstream.consumers.client.history import carries_history
from agentstream.schemas.events import PartDelta
from agentstream.schemas.messages import Message
from tests.chaos.inside import plan_of, serving
from tests.support.asked import asked_with, words
from tests.support.callers import client_of, playing
from tests.support.cluster import Cluster, cluster_of


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with one partition."""
    async with cluster_of(kafka, topics, partitions=1) as one:
        yield one


@asynccontextmanager
async def answering(cluster: Cluster) -> AsyncIterator[AgentClient]:
    """A client, and a worker that plays what requests say."""
    plan = plan_of(cluster.bootstrap_servers, cluster.topics.prefix)
    async with serving(plan, grace_s=1.0), client_of(cluster) as client:
        yield client


async def said(session: AgentSession, text: str, /, **options: object) -> str:
    run = await session.send(text, timeout=60, parameters=playing(**options))
    return (await run.result()).text


async def test_each_turn_is_asked_with_all_that_was_said_before(cluster: Cluster) -> None:
    async with answering(cluster) as client, client.session() as session:
        assert await said(session, "one") == "You said: one"
        assert await said(session, "two") == "You said: two"
        # Not waited for: `send` settles the turn before.
        await session.send("three", parameters=playing(text="3"))
        assert await said(session, "four", text="4") == "4"
        conversation = [
            *("user: one", "assistant: You said: one", "user: two", "assistant: You said: two"),
            *("user: three", "assistant: 3", "user: four"),
        ]
        assert await asked_with(cluster) == [conversation[:1], conversation[:3], conversation[:5], conversation]
        assert words(session.history) == [*conversation, "assistant: 4"]
        found = await client.history(session.session_id)
        assert (found.messages, found.turns, found.lost) == (session.history, 1, 0)
        assert await session.settle() is not None
        assert await session.settle() is None


async def test_a_turn_that_was_stopped_leaves_what_it_said_and_a_failed_one_nothing(cluster: Cluster) -> None:
    async with answering(cluster) as client, client.session("s") as session:
        await said(session, "one")
        run = await session.send("two", parameters=playing(text="half and never whole", hang="mid_text"))
        spoken = ""
        async for event in run:
            if isinstance(event, PartDelta):
                spoken += event.delta
            if spoken == "half and ":
                await run.cancel("enough")
        assert (await run.result()).status == "cancelled"
        before = words(session.history)
        assert before == ["user: one", "assistant: You said: one", "user: two", "assistant: half and "]
        await said(session, "three", error="max_turns", text="")
        assert words(session.history) == before
        await said(session, "four")
        assert (await asked_with(cluster))[-1] == [*before, "user: four"]


async def test_leaving_a_session_cancels_what_is_under_way(cluster: Cluster) -> None:
    async with answering(cluster) as client:
        async with client.session("s") as session:
            run = await session.send("wait", parameters=playing(hang="before_first"))
            with pytest.raises(RunTimeout):
                await session.settle(timeout=0.1)
        result = await client.wait(run.submitted, timeout=60)
        assert result.status == "cancelled"
        assert session.history == ()


async def test_what_is_no_message_is_refused_before_anything_is_sent(cluster: Cluster) -> None:
    async with client_of(cluster) as client:
        with pytest.raises(RequestRefused, match="not a message: role"):
            client.session(history=[{"role": "nobody", "content": "hi"}])
        async with client.session() as session:
            with pytest.raises(RequestRefused, match="the last message must be"):
                await session.send([{"role": "assistant", "content": "hi"}])
            assert session.history == ()
    assert await asked_with(cluster) == []


async def test_the_history_of_callers_who_keep_none_is_put_together_from_the_log(cluster: Cluster) -> None:
    async with answering(cluster) as client:
        for text in ("one", "two"):
            await client.invoke(text, session_id="s", timeout=60, parameters=playing())
            await client.invoke("elsewhere", session_id="t", timeout=60, parameters=playing())
        found = await client.history("s")
        assert words(found.messages) == [
            *("user: one", "assistant: You said: one", "user: two", "assistant: You said: two")
        ]
        assert (found.turns, found.lost, found.since) == (2, 0, None)
        async with client.session("s", history=found.messages) as session:
            await said(session, "three")
        assert (await asked_with(cluster))[-1] == [*words(found.messages), "user: three"]


async def test_a_session_that_cannot_be_continued_says_why(cluster: Cluster) -> None:
    async with answering(cluster) as client:
        with pytest.raises(SessionUnknown, match="session nobody is not on the log"):
            await client.history("nobody")
        run = await client.submit("hi", session_id="busy", parameters=playing(hang="before_first"))
        with pytest.raises(SessionBusy, match=f"run {run.run_id} has no result yet"):
            await client.history("busy")
        await client.cancel(run.run_id)
        await client.wait(run, timeout=60)
        assert (await client.history("busy")).messages == ()


async def test_a_history_that_retention_has_shortened_is_no_history_unless_that_is_asked_for(cluster: Cluster) -> None:
    async with answering(cluster) as client:
        await client.invoke("one", session_id="s", timeout=60, parameters=playing())
        two = await client.submit("two", session_id="s", parameters=playing())
        await client.wait(two, timeout=60)
        await cluster.expire_requests(two.position.offset)
        with pytest.raises(HistoryLost, match="1 turn of it is no longer on the log"):
            await client.history("s")
        left = await client.history("s", lost_is_fine=True)
        assert (words(left.messages), left.lost) == (["user: two", "assistant: You said: two"], 1)
        assert left.since is not None
        # A turn that was asked with the history before it makes that good.
        async with client.session("s", history=left.messages) as session:
            await said(session, "three")
        whole = await client.history("s")
        assert (whole.messages, whole.lost, whole.since) == (session.history, 0, None)


async def test_only_the_newest_requests_are_looked_at_where_they_tell_all(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows of one and two requests instead of 5,000 and 40,000.
    monkeypatch.setattr(recorded, "FIRST_WINDOW", 1)
    monkeypatch.setattr(recorded, "WIDER", 2)
    looked_at: list[int] = []
    carries = carries_history

    def counting(asked: tuple[Message, ...]) -> bool:
        looked_at.append(len(asked))
        return carries(asked)

    async with answering(cluster) as client, client.session("s") as session:
        for text in ("one", "two", "three"):
            await said(session, text)
        monkeypatch.setattr(recorded, "carries_history", counting)
        assert (await client.history("s")).messages == session.history
        assert set(looked_at) == {5}
        # The same request once more, by a caller who had no answer: what counts lies before it.
        four = (*session.history, Message.of_text("user", "four"))
        once = await client.invoke(four, session_id="s", run_id="again", timeout=60, parameters=playing())
        again = await client.invoke(four, session_id="s", run_id="again", timeout=60, parameters=playing())
        assert again == once
        assert words((await client.history("s")).messages) == [
            *words(session.history),
            "user: four",
            "assistant: You said: four",
        ]


async def test_a_caller_whose_clock_is_ahead_finds_the_history_all_the_same(cluster: Cluster) -> None:
    # The results then seem to be older than what was asked, and are not where they are looked for first.
    async with answering(cluster) as client:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ahead = int((datetime.now(UTC) + timedelta(minutes=30)).timestamp() * 1000)
        request = {
            "id": "r",
            "messages": [*messages, {"role": "user", "content": "c"}],
            "parameters": {"harness": {"kind": "scripted"}},
        }
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.send_and_wait(
                cluster.topics.invoke_requests, json.dumps(request).encode(), key=b"s", timestamp_ms=ahead
            )
        await cluster.tail.result("r")
        found = await client.history("s")
        assert words(found.messages) == ["user: a", "assistant: b", "user: c", "assistant: You said: c"]
