"""Connections that are forgotten on the way: open on both sides, and nothing comes through. New ones work.

A firewall that was restarted leaves such ones behind, all of a worker's at once. Nobody resets them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest

from agentstream.consumers import coordinator as coordinators
from agentstream.consumers.coordinator import CoordinatorError, GroupCoordinator
from agentstream.consumers.kafka import group_consumer
from agentstream.producers import answers, results
from agentstream.producers.answers import expect_answers
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import Interrupted
from agentstream.producers.results import InputOffset, ResultWriter
from tests.support.cluster import Cluster
from tests.support.frames import Api, Call
from tests.support.gated import GatedHarness
from tests.support.proxy import Hold, KafkaProxy, Rule
from tests.support.waiting import awaited, patience
from tests.support.workers import plan_of, quick, working

NEVER = 3600.0


def forget(proxy: KafkaProxy, *apis: Api, where: Callable[[Call], bool] = lambda _: True) -> Rule:
    """From the next such request on, nothing passes on connections that are open by then. Hit once that is so."""
    last: list[int] = []

    def forgotten(call: Call) -> bool:
        if not last and (not apis or call.api in apis) and where(call):
            last.append(proxy.connections_made)
        return bool(last) and call.connection <= last[0]

    return proxy.on(do=Hold.REQUEST, where=forgotten)


@pytest.mark.parametrize("api", [Api.PRODUCE, Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.END_TXN])
async def test_a_worker_whose_connections_are_forgotten_as_it_commits_goes_on(
    cluster: Cluster, proxy: KafkaProxy, api: Api
) -> None:
    """Each of its clients would have found out by itself, one after the other and some never: membership was asked for
    over a forgotten connection for ever, and without it nobody takes a partition back."""
    harness = GatedHarness()
    async with working(quick(plan_of(cluster, harness, through=proxy.bootstrap_servers))) as worker:
        await cluster.submit("under-way")
        await harness.started("under-way")
        await cluster.until_marked(1)
        forgotten = forget(proxy, api)
        harness.finish_all()
        await forgotten.hit()
        await cluster.submit("later")
        await cluster.tail.all_results("under-way", "later")
        forgotten.lift()  # what was asked arrives after all
        await cluster.submit("last")
        await cluster.tail.all_results("last")
        await worker.stop()
    await cluster.audit("under-way", "later", "last")


@pytest.mark.parametrize("api", [Api.FIND_COORDINATOR, Api.INIT_PRODUCER_ID, Api.OFFSET_FETCH, Api.METADATA, Api.FETCH])
async def test_a_worker_whose_connections_are_forgotten_as_it_acquires_goes_on(
    cluster: Cluster, proxy: KafkaProxy, api: Api
) -> None:
    harness = GatedHarness(gates_open=True)

    def in_acquisition(call: Call) -> bool:
        if api is Api.FETCH:  # of the index
            return any(topic == cluster.topics.finished_runs for topic, *_ in call.request.topics)
        return bool(proxy.made(Api.SYNC_GROUP, "a"))

    forgotten = forget(proxy, api, where=in_acquisition)
    await cluster.submit("waiting")
    async with working(quick(plan_of(cluster, harness, through=proxy.bootstrap_servers))) as worker:
        await forgotten.hit()
        await cluster.tail.all_results("waiting")
        await worker.stop()
    await cluster.audit("waiting")


async def test_an_idle_worker_whose_connections_are_forgotten_is_there_for_the_next_request(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    harness = GatedHarness(gates_open=True)
    async with working(quick(plan_of(cluster, harness, through=proxy.bootstrap_servers))) as worker:
        await cluster.submit("first")
        await cluster.tail.all_results("first")
        await forget(proxy, Api.HEARTBEAT).hit()
        await cluster.submit("second")
        await cluster.tail.all_results("second")
        await worker.stop()
    await cluster.audit("first", "second")


async def test_the_coordinator_is_asked_over_another_connection_after_one_that_gave_no_answer(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its questions were cut off a moment before aiokafka's time-out, which is what closes a connection: a worker asked
    for its membership over the same one every ten seconds, for ever. aiokafka keeps it if metadata was asked for."""
    monkeypatch.setattr(coordinators, "ANSWER_SECONDS", 0.5)
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="asking")
    async with GroupCoordinator(connection, cluster.group_id) as coordinator:
        assert await coordinator.partition_count(cluster.topics.control) == 1
        await coordinator.committed(cluster.topics.invoke_requests, 0)
        for api, ask in (
            (Api.METADATA, lambda: awaited(coordinator.partition_count(cluster.topics.control))),
            (Api.OFFSET_FETCH, lambda: awaited(coordinator.committed(cluster.topics.invoke_requests, 0))),
        ):
            forgotten = forget(proxy, api)
            with pytest.raises(CoordinatorError):
                await ask()
            async with patience():
                await ask()
            assert proxy.made(api, "asking")[-1].connection > forgotten.hits[0].connection
            forgotten.lift()


@asynccontextmanager
async def client_of(connection: KafkaConnection, seconds: float, **others: float) -> AsyncIterator[AIOKafkaClient]:
    """A bare client that waits so long for an answer, and for those of these APIs as long as is said there."""
    client = AIOKafkaClient(**connection.client_options())
    expect_answers(client, connection, seconds, others={Api[name]: limit for name, limit in others.items()})
    await client.bootstrap()
    try:
        yield client
    finally:
        await client.close()


async def test_what_one_client_learns_of_a_connection_ends_those_of_the_others_that_are_as_silent(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="both")
    async with AsyncExitStack() as stack:
        quick = await stack.enter_async_context(client_of(connection, 0.5))
        slow = await stack.enter_async_context(client_of(connection, NEVER))
        for client in (quick, slow):
            await client.send(client.get_random_node(), MetadataRequest([]))
        forgotten = forget(proxy, Api.METADATA)
        asking = asyncio.create_task(slow.send(slow.get_random_node(), MetadataRequest([])))
        await forgotten.hit()
        with pytest.raises(RequestTimedOutError):
            await quick.send(quick.get_random_node(), MetadataRequest([]))
        with pytest.raises(KafkaConnectionError):
            async with patience():
                await asking
        assert (await slow.send(slow.get_random_node(), MetadataRequest([]))).brokers


async def test_a_connection_that_still_gets_answers_is_left_alone(cluster: Cluster, proxy: KafkaProxy) -> None:
    """A broker may be slow with one thing: what it holds back on one connection says nothing of another in use."""
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="both")
    async with client_of(connection, 2.0) as client:
        node = client.get_random_node()
        held = proxy.on(Api.HEARTBEAT, do=Hold.REQUEST)
        waiting = asyncio.create_task(
            client.send(node, HeartbeatRequest(cluster.group_id, 1, "m"), group=ConnectionGroup.COORDINATION)
        )
        await held.hit()
        first = len(proxy.calls)
        while not waiting.done():
            await client.send(node, MetadataRequest([]))
            await asyncio.sleep(0.1)
        await client.send(node, MetadataRequest([]))
        with pytest.raises(RequestTimedOutError):
            await waiting
        assert len({call.connection for call in proxy.made(Api.METADATA, "both", since=first)}) == 1


async def test_what_brokers_hold_back_on_purpose_is_waited_for(cluster: Cluster, proxy: KafkaProxy) -> None:
    async with AsyncExitStack() as stack:
        patient, hasty = [
            await stack.enter_async_context(
                client_of(KafkaConnection(bootstrap_servers=proxy.bootstrap_servers), 0.5, **others)
            )
            for others in ({"HEARTBEAT": NEVER}, {})
        ]
        held = proxy.on(Api.HEARTBEAT, do=Hold.REQUEST)
        request = HeartbeatRequest(cluster.group_id, 1, "m")
        waiting = asyncio.create_task(patient.send(patient.get_random_node(), request))
        await held.hit()
        with pytest.raises(RequestTimedOutError):
            await hasty.send(hasty.get_random_node(), request)
        assert not waiting.done()
        held.lift()
        assert (await waiting).error_code


async def test_a_member_waits_for_a_rebalance_and_not_for_a_heartbeat(cluster: Cluster) -> None:
    """A join is answered when the slowest member has joined; a heartbeat at once. If that is lost, another one must
    still reach the coordinator before the session is over."""
    for session_s in (2.0, 6.0, 45.0):
        consumer = group_consumer(
            cluster.connection,
            cluster.group_id,
            session_timeout_ms=int(session_s * 1000),
            heartbeat_interval_ms=int(session_s * 200),
        )
        seconds = consumer._client.send.__self__._others
        assert seconds[Api.JOIN_GROUP] == seconds[Api.SYNC_GROUP] > session_s
        assert seconds[Api.HEARTBEAT] <= session_s / 2
        await consumer.stop()


async def test_a_writer_does_nothing_more_once_what_it_asked_may_arrive_late(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka asks for a transaction's end again over a new connection, is answered, and the next transaction begins.
    What it had asked first arrives then, and ends that one in its middle: results without the offset of theirs. The
    brokers cannot tell, it is the same producer. They refuse what comes of one whose successor has started."""
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 0.5)
    writer, offset = writer_of(cluster, proxy), offset_of(cluster)
    await writer.open()
    forgotten = forget(proxy, Api.END_TXN)
    with pytest.raises(Interrupted) as caught:
        await writer.commit([], offset)
    assert caught.value.in_doubt
    with pytest.raises(Interrupted):
        await writer.commit([], offset)
    await writer.close()
    async with AsyncExitStack() as stack:
        successor = await writer_of(cluster, proxy).open()
        stack.push_async_callback(successor.close)
        forgotten.lift()
        await successor.commit([], offset)


async def test_a_writer_whose_start_got_no_answer_starts_over_another_connection(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 0.5)
    forget(proxy, Api.INIT_PRODUCER_ID)
    async with AsyncExitStack() as stack:
        writer = await writer_of(cluster, proxy).open()
        stack.push_async_callback(writer.close)
        await writer.commit([], offset_of(cluster))


def writer_of(cluster: Cluster, proxy: KafkaProxy) -> ResultWriter:
    """A writer, not open, whose transactions end soon."""
    return ResultWriter(
        KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="writer"),
        cluster.group_id,
        transactional_id=cluster.group_id,
        max_record_bytes=1_000_000,
        transaction_timeout_ms=2_000,
    )


def offset_of(cluster: Cluster) -> InputOffset:
    return InputOffset(topic=cluster.topics.invoke_requests, partition=0, offset=1, metadata="")


async def test_a_writer_that_failed_is_closed_without_waiting_for_it(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It will write nothing any more, and its partition has none until it is closed: that took 5 to 15 s."""
    monkeypatch.setattr(results, "STOP_SECONDS", NEVER)
    writer = writer_of(cluster, proxy)
    await writer.open()
    held = proxy.on(Api.END_TXN, do=Hold.REQUEST)
    with pytest.raises(Interrupted, match="no answer in time"):
        await writer.commit([], offset_of(cluster))
    assert held.hits
    async with patience():
        await writer.close()
    sending = writer._producer._sender.sender_task
    assert sending is not None
    assert sending.done()
