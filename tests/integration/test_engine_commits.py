"""Transactions that fail: nothing is lost, nothing is written twice, and nobody who lives is fenced.

Each test is the trigger of one rule; the docstring names the fault and what happened, or happens, without the rule.
"""

import asyncio
import gc
import weakref
from collections.abc import Iterable
from dataclasses import replace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from agentstream.producers import results
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import WriteError
from agentstream.producers.kafka import stop_for_good, transactional_producer
from agentstream.producers.next_transaction import FIRST_SECONDS, Patience
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.records import OutgoingRecord
from tests.support.cluster import Cluster
from tests.support.complaints import no_complaints
from tests.support.frames import Api, Call, setting
from tests.support.gated import GatedHarness
from tests.support.history import claims
from tests.support.proxy import Cut, Hold, KafkaProxy, Rewrite
from tests.support.waiting import eventually
from tests.support.workers import plan_of, working

INVALID_PRODUCER_EPOCH = 47
CONCURRENT_TRANSACTIONS = 51
PRODUCER_FENCED = 90


async def test_a_result_that_the_brokers_refuse_is_replaced_and_its_neighbours_are_not_lost(cluster: Cluster) -> None:
    """A produce that fails inside a transaction and is not awaited is committed over: the commit returns OK, the offset
    moves, the result is lost. Awaited, the same batch would be refused for ever, unless what was refused twice goes
    alone and then as its fallback; and on the same producer every later send fails as well (out of sequence)."""
    await cluster.configure(cluster.topics.assistant_messages, max_message_bytes=20_000)
    harness = GatedHarness()
    ids = ("small-1", "large", "small-2", "small-3")
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit_all(*ids)
        for run_id in ids:
            await harness.started(run_id)
        for run_id in ids:
            # All in one turn of the loop, so that they share a transaction.
            harness.of(run_id)[0].finish("x" * (40_000 if run_id == "large" else 10))
        await cluster.tail.all_results(*ids)
        await cluster.submit("later")
        await harness.finished("later")
        await cluster.tail.all_results("later")
        await worker.stop()
    results = {result.run_id: result for result in cluster.tail.results}
    assert results["large"].status == "failed"
    assert results["large"].error is not None
    assert results["large"].error.code == ErrorCode.OUTPUT_TOO_LARGE
    assert [results[run_id].status for run_id in (*ids, "later") if run_id != "large"] == ["completed"] * 4
    assert [len(harness.of(run_id)) for run_id in ids] == [1] * 4
    await cluster.audit(*ids, "later")


@pytest.mark.parametrize("refused", [False, True])
async def test_a_commit_in_doubt_is_settled_by_its_number_and_not_written_twice(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    """The broker committed, and the worker does not know: the answer never came, or said "fenced". What was committed
    can be told by the commit number in the metadata alone; put back unasked, the result would be written again."""
    monkeypatch.setattr(results, "COMMIT_SHARE", 1 / 60)
    harness = GatedHarness()
    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await worker.owns()
        await cluster.submit_all("doubted", "open")
        await harness.started("open")
        await cluster.until_marked(2)
        doubt = proxy.on(
            Api.END_TXN, do=Rewrite(setting(error_code=PRODUCER_FENCED)) if refused else Hold.ANSWER, times=1
        )
        await harness.finished("doubted")
        await doubt.hit()
        await cluster.tail.all_results("doubted")
        await cluster.submit("next")
        await harness.finished("next")
        await cluster.tail.all_results("next")
        doubt.lift()
        await harness.finished("open")
        await cluster.tail.all_results("open")
        await worker.stop()
    assert [len(harness.of(run_id)) for run_id in ("doubted", "open", "next")] == [1, 1, 1]
    assert len(claims(await cluster.history())) == 1
    await cluster.audit("doubted", "open", "next")


async def test_a_commit_whose_answer_was_cut_off_is_not_written_twice(cluster: Cluster, proxy: KafkaProxy) -> None:
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await worker.owns()
        cut = proxy.on(Api.END_TXN, do=Cut.AFTER, times=3)
        await cluster.submit_all("1", "2", "3")
        await cluster.tail.all_results("1", "2", "3")
        await cut.hit()
        await worker.stop()
    await cluster.audit("1", "2", "3")


async def test_a_transaction_that_timed_out_on_the_broker_costs_no_run_and_is_committed_once(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProducerFenced means a new owner, or that the broker ended our transaction because it took too long (7 times of
    7): they look alike. Taken for a new owner it would cancel every run of the partition and run them again."""
    # We give up first as a rule; but the broker's clock runs on while our process is stopped.
    monkeypatch.setattr(results, "COMMIT_SHARE", 30)
    harness = GatedHarness()
    plan = replace(plan_of(cluster, harness, through=proxy.bootstrap_servers), transaction_timeout_ms=1_000)
    async with working(plan) as worker:
        claim = await worker.owns()
        await cluster.submit_all("slow", "open")
        await harness.started("open")
        await cluster.until_marked(2)
        before = await cluster.end_of(cluster.topics.assistant_messages)
        held = proxy.on(Api.END_TXN, do=Hold.REQUEST)
        await harness.finished("slow")
        await held.hit()
        # The result, and behind it the broker's abort marker.
        await cluster.until_end_of(cluster.topics.assistant_messages, before + 2)
        held.lift()
        assert (await cluster.tail.result("slow")).claim == claim
        await harness.finished("open")
        assert (await cluster.tail.result("open")).claim == claim
        await worker.stop()
    assert [len(harness.of(run_id)) for run_id in ("slow", "open")] == [1, 1]
    await cluster.audit("slow", "open")


async def test_a_fenced_worker_fences_nobody_until_a_heartbeat_of_its_own_was_answered(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    """A zombie that wakes is fenced at its first commit. If it opened a new producer at once, it would fence the live
    owner. So it asks the group first; and without an answer it asks again, and fences nobody on a guess."""
    harness = GatedHarness()
    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await worker.owns()
        await cluster.submit("run")
        await harness.started("run")
        await cluster.until_marked(1)
        opened = len(proxy.made(Api.INIT_PRODUCER_ID, "a"))
        consumers = {call.connection for call in proxy.made(Api.JOIN_GROUP, "a")}

        def asked_by_us(call: Call) -> bool:
            return call.connection not in consumers

        unanswered = proxy.on(Api.HEARTBEAT, do=Cut.BEFORE, where=asked_by_us)
        proxy.on(Api.END_TXN, do=Rewrite(setting(error_code=PRODUCER_FENCED)), times=1)
        await harness.finished("run")
        await unanswered.hit(2)
        assert len(proxy.made(Api.INIT_PRODUCER_ID, "a")) == opened
        unanswered.lift()
        rebalancing = proxy.on(Api.HEARTBEAT, do=Rewrite(setting(error_code=27)), where=asked_by_us)
        await rebalancing.hit(2)
        assert len(proxy.made(Api.INIT_PRODUCER_ID, "a")) == opened
        rebalancing.lift()
        await proxy.until_made(Api.INIT_PRODUCER_ID, "a", opened + 1)
        await cluster.tail.all_results("run")
        await worker.stop()
    await cluster.audit("run")


async def test_a_producer_fenced_between_two_sends_is_a_failed_transaction_and_no_bug(
    cluster: Cluster, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka then says IllegalOperation ("not in a transaction"), which is no KafkaError. It ended a worker when a
    partition came back after it had been elsewhere."""
    writer = ResultWriter(
        KafkaConnection(bootstrap_servers=proxy.bootstrap_servers),
        cluster.group_id,
        transactional_id=cluster.group_id,
        max_record_bytes=1_000_000,
    )
    first, second = cluster.topics.assistant_messages, f"{cluster.topics.prefix}made-later"
    records = [OutgoingRecord(topic=topic, partition=0, key=None, value=b"x") for topic in (first, second)]
    offset = InputOffset(topic=cluster.topics.invoke_requests, partition=0, offset=0, metadata="")
    with no_complaints(caplog):
        await writer.open()
        # The second send has to ask for this topic, and meanwhile the first one's partition is refused.
        await cluster.make_topic(second)
        asking = proxy.on(Api.METADATA, do=Hold.ANSWER, where=lambda call: second in (call.request.topics or ()))
        refusal = setting(errors=[(first, [(0, INVALID_PRODUCER_EPOCH)])])
        fenced = proxy.on(Api.ADD_PARTITIONS_TO_TXN, do=Rewrite(refusal))
        committing = asyncio.create_task(writer.commit(records, offset))
        await asking.hit()
        await fenced.answered()
        asking.lift()
        with pytest.raises(WriteError, match="IllegalOperation"):
            await committing
        await writer.close()
        del writer, committing


async def test_a_producer_fenced_while_a_record_is_under_way_leaves_no_error_that_nobody_saw(
    cluster: Cluster, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused elsewhere, the sender dies and fails its batches; then the produce request fails too, and aiokafka
    looked in vain for the batch that it wanted to put back: a KeyError that asyncio printed as an error of ours."""
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers)
    position = {TopicPartition(cluster.topics.invoke_requests, 0): OffsetAndMetadata(0, "")}
    with no_complaints(caplog):
        producer = transactional_producer(connection, cluster.group_id, max_request_size=1_000_000)
        await producer.start()
        under_way = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
        await producer.begin_transaction()
        sent = await producer.send(cluster.topics.assistant_messages, b"never answered", partition=0)
        await under_way.hit()
        proxy.on(Api.ADD_OFFSETS_TO_TXN, do=Rewrite(setting(error_code=INVALID_PRODUCER_EPOCH)))
        with pytest.raises(ProducerFenced):
            await producer.send_offsets_to_transaction(position, cluster.group_id)
        assert isinstance(sent.exception(), ProducerFenced)
        await stop_for_good(producer)
        await eventually(lambda: not any("_send_produce_req" in repr(task) for task in asyncio.all_tasks()), "it ends")
        del producer, sent


async def test_a_transaction_refused_while_the_last_one_completes_is_begun_again_in_our_rhythm(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brokers refuse it for the 1 to 2 ms in which they write the last one's markers; aiokafka waits a hard 20."""
    waits, after = list[float | None](), Patience.after

    def noted(patience: Patience, errors: Iterable[int], otherwise: float | None) -> float | None:
        waits.append(after(patience, errors, otherwise))
        return waits[-1]

    monkeypatch.setattr(Patience, "after", noted)
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers)
    writer = ResultWriter(connection, cluster.group_id, transactional_id=cluster.group_id, max_record_bytes=1_000_000)
    topic = cluster.topics.assistant_messages
    record = OutgoingRecord(topic=topic, partition=0, key=None, value=b"x")
    offset = InputOffset(topic=cluster.topics.invoke_requests, partition=0, offset=0, metadata="")
    await writer.open()
    refusal = setting(errors=[(topic, [(0, CONCURRENT_TRANSACTIONS)])])
    proxy.on(Api.ADD_PARTITIONS_TO_TXN, do=Rewrite(refusal), times=2)
    await writer.commit([record], offset)
    assert waits == [FIRST_SECONDS, 2 * FIRST_SECONDS, None, None]
    waits.clear()
    proxy.on(Api.ADD_OFFSETS_TO_TXN, do=Rewrite(setting(error_code=CONCURRENT_TRANSACTIONS)), times=1)
    await writer.commit([], offset)
    await writer.close()
    # This one may be refused in earnest as well.
    assert (waits[0], waits[-1]) == (FIRST_SECONDS, None)


async def test_a_stop_that_took_too_long_leaves_no_task_and_no_socket(
    cluster: Cluster, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka's `stop()` waits for batches that never expire. Timed out, it leaves its sender task and its sockets
    behind, and a second `stop()` does nothing: a worker would collect one more of each with every broken producer. And
    whatever was left unsaid is printed by asyncio as an error, at some later time."""
    before = asyncio.all_tasks()
    connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="stopped")
    with no_complaints(caplog):
        producer = transactional_producer(connection, cluster.group_id, max_request_size=1_000_000)
        await producer.start()
        stuck = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
        await producer.begin_transaction()
        sent = [await producer.send(cluster.topics.assistant_messages, b"never answered", partition=0)]
        await stuck.hit()
        sent.append(await producer.send(cluster.topics.assistant_messages, b"never sent", partition=0))
        await stop_for_good(producer, 0.2)
        await eventually(lambda: proxy.open_connections("stopped") == 0, "its sockets are closed")
        stuck.lift()
        assert [task for task in asyncio.all_tasks() - before if "/aiokafka/producer/" in repr(task)] == []
        assert all(isinstance(future.exception(), KafkaError) for future in sent)
        remains = weakref.ref(producer._message_accumulator)
        del producer, sent
        gc.collect()
        assert remains() is None
