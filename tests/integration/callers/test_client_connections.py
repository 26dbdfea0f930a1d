"""What a client does to the brokers and they to it: connections, restarts, refusals, and nothing left at the end."""

import asyncio

import psutil
import pytest

from agentstream.consumers.client import AgentClient, BrokerUnavailable, ClientNotOpen, RequestRefused, TopicsMissing
from agentstream.consumers.client.follower import Follower, Listener
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.infra.topics import apply_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics
from tests.conftest import PrivateKafka
from tests.support.callers import CALLER, client_of
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api
from tests.support.outputs import Outputs, answer, outputs_of
from tests.support.proxy import Cut, Hold, KafkaProxy
from tests.support.waiting import WAIT_SECONDS, eventually


def fetching(proxy: KafkaProxy) -> set[int]:
    """The client's connections that fetched so far."""
    return {call.connection for call in proxy.calls if call.api == Api.FETCH and call.client_id == CALLER}


async def stream_one(client: AgentClient, outputs: Outputs, text: str) -> None:
    """One caller, from the request to the result, with every event seen."""
    async with client.stream("hi", timeout=WAIT_SECONDS) as run:
        await outputs.whole_run(run.submitted, text)
        assert [event.type async for event in run if hasattr(event, "type")] == [e.type for e in answer(text)]
        assert run.transcript.text == text
        assert (await run.result()).text == text


async def test_a_hundred_callers_share_two_consumers(cluster: Cluster, outputs: Outputs, proxy: KafkaProxy) -> None:
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        await stream_one(client, outputs, "first")
        # One broker: one connection for the producer and one for each consumer.
        assert proxy.open_connections(CALLER) == 3
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(_one_of_many(client, f"answer {number}"))
            await _answer_all(outputs, 101)
        assert proxy.open_connections(CALLER) == 3
        assert len(fetching(proxy)) == 2
    await eventually(lambda: proxy.open_connections(CALLER) == 0, "all connections are closed")


async def test_a_client_that_is_closed_says_so_and_opens_nothing(cluster: Cluster, proxy: KafkaProxy) -> None:
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        submitted = await client.submit("hi")
    await eventually(lambda: proxy.open_connections(CALLER) == 0, "all connections are closed")
    before = len(proxy.calls)
    for use in (client.submit("hi"), client.invoke("hi"), client.wait(submitted), client.cancel(submitted.run_id)):
        with pytest.raises(ClientNotOpen):
            await use
    assert (len(proxy.calls), proxy.open_connections(CALLER)) == (before, 0)


async def _one_of_many(client: AgentClient, text: str) -> None:
    async with client.stream(text, timeout=WAIT_SECONDS) as run:
        seen = [event async for event in run]
        assert len(seen) == len(answer(text))
        assert run.transcript.text == text
        assert (await run.result()).text == text


async def _answer_all(outputs: Outputs, count: int) -> None:
    """A worker by hand: answers each request with the text it holds, in the order of its own choice."""
    for submitted, text in reversed(await outputs.requests(count)):
        if text.startswith("answer"):
            await outputs.whole_run(submitted, text)


async def test_brokers_that_go_and_come_back_are_two_lines(
    cluster: Cluster, outputs: Outputs, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture
) -> None:
    # aiokafka told of each attempt to connect: a hundred lines a second on the caller's stderr.
    async with (
        client_of(cluster, through=proxy.bootstrap_servers) as client,
        client.stream("hi", timeout=WAIT_SECONDS) as run,
    ):
        away = proxy.on(do=Cut.BEFORE)
        await away.hit(30)
        away.lift()
        await eventually(lambda: "answers again" in caplog.text, "it is said that Kafka answers again")
        await outputs.whole_run(run.submitted, "words")
        assert (await run.result()).text == "words"
    begins, ends = (line for line in caplog.messages if "onnect" in line or "answer" in line)
    assert begins.startswith("Kafka does not answer; going on when it does (")
    assert ends.startswith("Kafka answers again, after ")


async def test_who_only_submits_reads_nothing(cluster: Cluster, proxy: KafkaProxy) -> None:
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        await asyncio.gather(*(client.submit("hi") for _ in range(20)))
    assert fetching(proxy) == set()


async def test_a_client_for_whom_nobody_waits_stops_reading_and_begins_again(
    cluster: Cluster, outputs: Outputs, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.consumers.client.follower.LINGER_SECONDS", 0.0)
    monkeypatch.setattr("agentstream.consumers.client.follower.FRESH_SECONDS", 0.0)
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        followers = (client._outputs.results, client._outputs.deltas)
        for text in ("first", "second", "third"):
            await stream_one(client, outputs, text)
            await eventually(lambda: not any(follower.reading for follower in followers), "nothing is read")
    assert len(fetching(proxy)) == 2


async def test_a_bug_of_ours_in_a_follower_reaches_everybody_who_waits(cluster: Cluster, outputs: Outputs) -> None:
    """The task that reads is nobody's: its exception would be noticed when the client is closed, if ever."""

    def buggy(record: Record) -> str | None:
        raise ZeroDivisionError(record.position)

    tail = Tail(lambda: tail_consumer(cluster.connection, read_committed=True), cluster.topics.assistant_messages)
    follower = Follower(tail, also_needed=(), run_id_of=buggy)
    failures: list[Exception] = []
    async with follower.listening("run", Listener(lambda _: None, failures.append)):
        await outputs.raw_results((b"{}", ()))
        await eventually(lambda: bool(failures), "the listener is told")
    assert isinstance(failures[0], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        await follower.positions()
    with pytest.raises(ZeroDivisionError):
        await follower.close()


async def test_nothing_is_left_when_a_client_is_closed_in_the_middle(cluster: Cluster, proxy: KafkaProxy) -> None:
    async def use_and_leave() -> set[str]:
        async with (
            client_of(cluster, through=proxy.bootstrap_servers) as client,
            client.stream("hi"),
            client.stream("hi"),
        ):
            waiting = [asyncio.create_task(client.invoke("hi")), asyncio.create_task(_all(client))]
            # The last two may ride in one produce request.
            await eventually(lambda: len(proxy.made(Api.PRODUCE, CALLER)) >= 3, "all are sent")
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        return {repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    # In a loop of its own, where no task is anybody else's.
    assert await asyncio.to_thread(asyncio.run, use_and_leave()) == set()
    await eventually(lambda: proxy.open_connections(CALLER) == 0, "all connections are closed")


async def _all(client: AgentClient) -> None:
    async with client.stream("hi") as run:
        async for _ in run:
            pass


async def test_a_broker_that_is_killed_and_restarted_costs_a_waiting_caller_nothing(
    private_kafka: PrivateKafka, topics: str
) -> None:
    broker = await private_kafka()
    async with (
        cluster_of(broker.bootstrap_servers, topics, partitions=2) as cluster,
        outputs_of(cluster) as outputs,
        client_of(cluster) as client,
        client.stream("hi") as run,
    ):
        invoked = asyncio.create_task(client.invoke("hi", run_id="other"))
        await outputs.requests(2)
        events = answer("be", "fore", " and after")
        await outputs.events(run.submitted, events[:5])
        assert [(await anext(run)).seq for _ in range(5)] == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
        await broker.kill()
        await broker.restart()
        await outputs.events(run.submitted, events[3:], first_seq=3)
        await outputs.result(run.submitted, last_seq=len(events) - 1, text="before and after")
        assert [event.seq async for event in run if hasattr(event, "seq")] == [5, 6, 7, 8]
        assert (await run.result()).text == run.transcript.text == "before and after"
        assert not run.transcript.rule.missing
        await outputs.whole_run(next(sent for sent, _ in await outputs.requests(2) if sent.run_id == "other"))
        assert (await invoked).run_id == "other"
        await stream_one(client, outputs, "a new one")


async def test_a_request_whose_acknowledgement_is_lost_is_not_lost_itself(
    cluster: Cluster, outputs: Outputs, proxy: KafkaProxy
) -> None:
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        lost = proxy.on(Api.PRODUCE, do=Cut.AFTER, client=CALLER, times=2)
        async with client.stream("hi", run_id="mine", timeout=WAIT_SECONDS) as run:
            assert len(lost.hits) == 2
            await outputs.whole_run(run.submitted)
            assert (await run.result()).run_id == "mine"


async def test_consumers_whose_connections_break_go_on_where_they_stood(
    cluster: Cluster, outputs: Outputs, proxy: KafkaProxy
) -> None:
    async with (
        client_of(cluster, through=proxy.bootstrap_servers) as client,
        client.stream("hi", timeout=WAIT_SECONDS) as run,
    ):
        events = answer("a", "b", "c")
        await outputs.events(run.submitted, events[:4])
        assert [(await anext(run)).seq for _ in range(4)] == [0, 1, 2, 3]  # type: ignore[union-attr]
        broken = proxy.on(do=Cut.AFTER, client=CALLER, where=lambda call: call.api == Api.FETCH)
        await outputs.events(run.submitted, events[4:], first_seq=4)
        await outputs.result(run.submitted, last_seq=len(events) - 1, text="abc")
        await broken.hit(6)
        broken.lift()
        assert [event.seq async for event in run if hasattr(event, "seq")] == [4, 5, 6, 7, 8]
        assert (await run.result()).text == "abc"


async def test_a_request_too_large_is_refused_and_others_are_not_harmed(kafka: str, topics: str) -> None:
    """A batch that the broker refuses leaves a hole in an idempotent producer's sequence: unless the producer is
    replaced, every later request to that partition is refused as out of sequence."""
    connection = KafkaConnection(bootstrap_servers=kafka)
    await apply_topics(connection, Topics(prefix=topics), partitions=1, max_request_bytes=20_000)
    async with AgentClient(kafka, topic_prefix=topics) as client:
        await client.submit("small")
        for size in (30_000, 2_000_000):
            with pytest.raises(RequestRefused):
                await client.submit("x" * size)
            await client.submit("small")


async def test_topics_that_do_not_exist_are_named_and_not_created(kafka: str, topics: str) -> None:
    async with AgentClient(kafka, topic_prefix=topics) as client:
        for _ in range(2):
            with pytest.raises(
                TopicsMissing, match=f"{topics}assistant-messages, {topics}invoke-requests, or this user"
            ):
                await client.invoke("hi")


async def test_brokers_that_do_not_answer_end_the_callers_patience(cluster: Cluster, proxy: KafkaProxy) -> None:
    async with client_of(cluster, through=proxy.bootstrap_servers) as client:
        silent = proxy.on(Api.PRODUCE, do=Hold.REQUEST, client=CALLER)
        with pytest.raises(BrokerUnavailable):
            await client.invoke("hi", timeout=1.0)
        silent.lift()


async def test_a_partition_that_is_added_later_is_read_too(cluster: Cluster, outputs: Outputs) -> None:
    async with client_of(cluster) as old:
        await stream_one(old, outputs, "before")
        for topic in (*cluster.topics.outputs, cluster.topics.invoke_requests):
            await cluster.grow(topic, 3)
        async with client_of(cluster) as new:
            submitted = await new.submit("hi")
            while submitted.position.partition != 2:
                submitted = await new.submit("hi")
        async with old.follow(submitted, timeout=WAIT_SECONDS) as run, outputs_of(cluster) as now:
            await now.whole_run(submitted, "there")
            assert [event async for event in run]
            assert (await run.result()).text == "there"


async def test_a_process_has_no_more_sockets_after_many_clients(cluster: Cluster, outputs: Outputs) -> None:
    def sockets() -> int:
        return len(psutil.Process().net_connections(kind="tcp"))

    async with client_of(cluster) as client:
        await stream_one(client, outputs, "warm")
    before = sockets()
    for _ in range(3):
        async with client_of(cluster) as client:
            await stream_one(client, outputs, "ok")
    await eventually(lambda: sockets() <= before, "all sockets are closed")
