"""Records that aiokafka's consumer cannot decode: read all the same, or held where they are. On a real Kafka."""

import asyncio
import logging
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException, MessageSizeTooLargeError

from agentstream.consumers import source
from agentstream.consumers.index import IndexDamagedError, load_index
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.schemas.records import Record
from tests.golden.bad_input import body
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api, Call
from tests.support.gated import GatedHarness
from tests.support.odd_records import BAD_NAME, batch, produce
from tests.support.proxy import KafkaProxy, Rewrite, Rule
from tests.support.waiting import eventually, patience
from tests.support.workers import plan_of, working

MARK = b"damage-me"


def damage(response: Any) -> None:
    """Change bytes of a record on their way: its batch's checksum no longer holds."""
    response.topics = [
        (topic, [(*rest, data.replace(MARK, MARK.upper())) for *rest, data in partitions])
        for topic, partitions in response.topics
    ]


def damaging(proxy: KafkaProxy, topic: str, client: str) -> Rule:
    def reads_it(call: Call) -> bool:
        return any(name == topic for name, _ in call.request.topics)

    return proxy.on(Api.FETCH, client=client, where=reads_it, do=Rewrite(damage))


async def test_a_header_name_in_no_encoding_costs_neither_the_worker_nor_a_record(cluster: Cluster) -> None:
    """Decoding it raises UnicodeDecodeError out of `getmany`: it ended the worker, then the next one, and so on, and
    the records fetched before it were lost as their partition's position had moved on."""
    harness = GatedHarness(gates_open=True)
    await cluster.submit("before")
    named = [(BAD_NAME, b"1"), (b"ce_id", b"ignored")]
    odd = [body(id="odd-1"), body(id="odd-2")]
    await produce(cluster.bootstrap_servers, cluster.topics.invoke_requests, batch(odd, headers=named))
    await produce(cluster.bootstrap_servers, cluster.topics.invoke_requests, batch([b"no json"], headers=named[:1]))
    await cluster.submit("after")
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("before", "odd-1", "odd-2", "after")
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 1)
        await worker.stop()
    (letter,) = cluster.tail.dead_letters
    assert letter.value == b"no json"
    assert ("x-\\xff\\xfe", b"1") in letter.headers
    await cluster.audit("before", "odd-1", "odd-2", "after")


async def test_a_compressed_batch_with_such_a_name_is_read_as_well(cluster: Cluster) -> None:
    values = [body(id=f"zipped-{number}") for number in range(50)]
    for codec in (1, 3, 4):
        raw = batch(
            [value.replace(b"zipped", b"z%d" % codec) for value in values], headers=[(BAD_NAME, b"")], codec=codec
        )
        await produce(cluster.bootstrap_servers, cluster.topics.invoke_requests, raw)
    names = [f"z{codec}-{number}" for codec in (1, 3, 4) for number in range(50)]
    async with working(plan_of(cluster, GatedHarness(gates_open=True))) as worker:
        await cluster.tail.all_results(*names)
        await worker.stop()
    await cluster.audit(*names)


async def test_what_was_rolled_back_before_such_a_name_stays_unread(cluster: Cluster) -> None:
    await cluster.submit_in_transaction("never-1", commit=False)
    await cluster.submit_in_transaction("first", commit=True)
    raw = batch([body(id="odd")], headers=[(BAD_NAME, b"")])
    await produce(cluster.bootstrap_servers, cluster.topics.invoke_requests, raw)
    await cluster.submit_in_transaction("never-2", commit=False)
    await cluster.submit_in_transaction("last", commit=True)
    async with working(plan_of(cluster, GatedHarness(gates_open=True))) as worker:
        await cluster.tail.all_results("first", "odd", "last")
        await worker.stop()
    await cluster.audit("first", "odd", "last")


async def test_readers_and_the_index_read_on_behind_such_a_name(cluster: Cluster) -> None:
    for topic in (cluster.topics.finished_runs, cluster.topics.control):
        await produce(cluster.bootstrap_servers, topic, batch([b"1", b"2"], headers=[(BAD_NAME, b"")]))
        await produce(cluster.bootstrap_servers, topic, batch([b"3"]))
    assert (await load_index(cluster.connection, cluster.topics.finished_runs, 0, whole=True)).hashes == {}
    tail = Tail(lambda: tail_consumer(cluster.connection, read_committed=True), cluster.topics.control)
    try:
        tail.seek({0: 0})
        tail.resume()
        assert [record.value for record in await read(tail, 3)] == [b"1", b"2", b"3"]
    finally:
        await tail.close()


async def read(tail: Tail, count: int) -> list[Record]:
    found: list[Record] = []
    async with patience():
        while len(found) < count:
            found += [item for item in await tail.poll(0.5) if isinstance(item, Record)]
    return found


async def test_a_batch_that_nobody_can_read_holds_its_partition_is_told_of_once_and_skips_nothing(
    engine_kafka: str, topics: str, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka's word for it came five times a second, and the good records fetched together with it were lost: the
    position had moved on when the error was raised."""
    monkeypatch.setattr(source, "UNREADABLE_SECONDS", 0.05)
    caplog.set_level(logging.WARNING)
    async with cluster_of(engine_kafka, topics, partitions=2) as cluster:
        requests = cluster.topics.invoke_requests
        await produce(engine_kafka, requests, batch([body(id="good-1"), body(id="good-2")]))
        await produce(engine_kafka, requests, batch([body(id="bad", metadata={"x": MARK.decode()})]))
        await produce(engine_kafka, requests, batch([body(id="behind")]))
        await produce(engine_kafka, requests, batch([body(id="elsewhere")]), partition=1)
        rule = damaging(proxy, requests, "a")
        plan = plan_of(cluster, GatedHarness(gates_open=True), through=proxy.bootstrap_servers)
        async with working(plan) as worker:
            await cluster.tail.all_results("good-1", "good-2", "elsewhere")
            await eventually(lambda: worker.worker.source.unreadable(0) is not None, "the partition is held")
            await rule.hit(len(rule.hits) + 5)
            assert {result.run_id for result in cluster.tail.results} == {"good-1", "good-2", "elsewhere"}
            told = [line.getMessage() for line in caplog.records if "cannot be read" in line.getMessage()]
            assert len(told) == 1
            assert "from 2 on" in told[0]
            assert CorruptRecordException.__name__ in told[0]
            assert "from 2 on" in await worker.closed(0)
            rule.lift()
            await cluster.tail.all_results("bad", "behind")
            await worker.stop()
        await cluster.audit("good-1", "good-2", "bad", "behind", "elsewhere")


async def test_an_operator_takes_out_what_nobody_can_read_while_the_worker_runs(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/operating.md says: the records below an offset are deleted, and the worker goes on behind them."""
    monkeypatch.setattr(source, "UNREADABLE_SECONDS", 0.05)
    requests = cluster.topics.invoke_requests
    await produce(cluster.bootstrap_servers, requests, batch([body(id="bad", metadata={"x": MARK.decode()})]))
    await produce(cluster.bootstrap_servers, requests, batch([body(id="behind")]))
    damaging(proxy, requests, "a")
    plan = plan_of(cluster, GatedHarness(gates_open=True), through=proxy.bootstrap_servers)
    async with working(plan) as worker:
        await eventually(lambda: worker.worker.source.unreadable(0) is not None, "the partition is held")
        await cluster.expire_requests(1)
        await cluster.tail.all_results("behind")
        assert worker.worker.source.unreadable(0) is None
        await worker.stop()
    await cluster.audit("behind")


async def test_a_reader_stays_before_what_it_cannot_read_and_an_index_is_not_taken_for_shorter(
    cluster: Cluster, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.consumers.readers.tail.UNREADABLE_SECONDS", 0.05)
    for topic in (cluster.topics.finished_runs, cluster.topics.control):
        for value in (b"1", MARK, b"3"):
            await produce(cluster.bootstrap_servers, topic, batch([value]))
    connection = type(cluster.connection)(bootstrap_servers=proxy.bootstrap_servers, client_id="reader")
    damaging(proxy, cluster.topics.finished_runs, "reader")
    with pytest.raises(IndexDamagedError, match="from 1 on"):
        await load_index(connection, cluster.topics.finished_runs, 0)
    rule = damaging(proxy, cluster.topics.control, "reader")
    tail = Tail(lambda: tail_consumer(connection, read_committed=True), cluster.topics.control)
    try:
        tail.seek({0: 0})
        tail.resume()
        assert [record.value for record in await read(tail, 1)] == [b"1"]
        reading = asyncio.create_task(read(tail, 2))
        await rule.hit(4)
        assert not reading.done()
        rule.lift()
        assert [record.value for record in await reading] == [MARK, b"3"]
        assert sum("cannot be read" in line.getMessage() for line in caplog.records) == 1
    finally:
        await tail.close()


async def test_an_input_that_unpacks_what_is_written_refuses_what_would_grow_too_large(cluster: Cluster) -> None:
    """As docs/operating.md says. Without the setting 9.7 kB of zstd were 300 MiB in a worker."""
    requests = cluster.topics.invoke_requests
    small_but_large = batch([body(text="x" * 4_000_000)], codec=4)
    assert len(small_but_large) < 2_000
    assert await produce(cluster.bootstrap_servers, requests, small_but_large) == 0
    await cluster.configure(requests, compression_type="uncompressed")
    with pytest.raises(AssertionError, match=str(MessageSizeTooLargeError.errno)):
        await produce(cluster.bootstrap_servers, requests, small_but_large)
    assert await produce(cluster.bootstrap_servers, requests, batch([body()], codec=4)) == 1
