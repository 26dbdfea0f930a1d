"""Readers of whole topics: where they begin, where they end, and what they say of records they cannot read."""

import asyncio
import secrets
from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentstream.consumers.readers import DeltaReader, Expired, Read, ResultReader, TopicMissing, TopicReader
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import transactional_producer
from agentstream.schemas.codec import decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.results import InvokeResult
from tests.conftest import PrivateKafka
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api
from tests.support.outputs import Outputs, answer, outputs_of
from tests.support.proxy import Cut, KafkaProxy
from tests.support.runs import flush, result_of
from tests.support.waiting import WAIT_SECONDS


async def write(outputs: Outputs, *run_ids: str, partition: int = 0, commit: bool = True) -> None:
    results = [(result_of(run_id=run_id, partition=partition), run_id) for run_id in run_ids]
    await outputs.results(*results, partition=partition, commit=commit)


async def all_of(reader: TopicReader[InvokeResult]) -> list[str]:
    """Run ids until the reader ends, in order; problems and losses by their names."""
    async with asyncio.timeout(WAIT_SECONDS):
        return [name_of(found) async for found in reader]


def name_of(found: Read[InvokeResult] | Expired) -> str:
    if isinstance(found, Expired):
        return f"expired {found.expected}-{found.resumed_at}"
    return found.value.code if isinstance(found.value, Problem) else found.value.run_id


async def test_it_reads_from_the_beginning_to_what_was_the_end(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "a", "b")
    await write(outputs, "c", partition=1)
    async with ResultReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        await write(outputs, "later")
        assert sorted(await all_of(reader)) == ["a", "b", "c"]


async def test_an_empty_topic_ends_at_once(cluster: Cluster) -> None:
    async with ResultReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        assert await all_of(reader) == []


async def test_aborted_results_at_the_end_are_neither_shown_nor_waited_for(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "a")
    await write(outputs, "aborted", commit=False)
    async with ResultReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        assert await all_of(reader) == ["a"]


async def test_from_the_end_it_sees_all_that_is_written_after_it_was_entered(
    cluster: Cluster, outputs: Outputs
) -> None:
    await write(outputs, "before")
    async with ResultReader(cluster.connection, cluster.topics) as reader:
        await write(outputs, "after")
        async with asyncio.timeout(WAIT_SECONDS):
            assert name_of(await anext(reader)) == "after"


async def test_it_goes_on_where_another_stood(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "a", "b", "c")
    await write(outputs, "d", partition=1)
    async with ResultReader(cluster.connection, cluster.topics, start="beginning", partitions=[0]) as first:
        assert [name_of(await anext(first)) for _ in range(2)] == ["a", "b"]
        positions = first.positions
    assert positions.keys() == {0}
    async with ResultReader(cluster.connection, cluster.topics, start=positions, until_end=True) as second:
        assert await all_of(second) == ["c"]


async def test_it_begins_at_an_instant(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "before")
    await asyncio.sleep(0.01)  # Kafka's timestamps have milliseconds
    instant = datetime.now(UTC)
    await write(outputs, "after")
    async with ResultReader(cluster.connection, cluster.topics, start=instant, until_end=True) as reader:
        assert await all_of(reader) == ["after"]


async def test_a_partition_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\], asked for were \[5\]"):
        await ResultReader(cluster.connection, cluster.topics, partitions=[5]).__aenter__()


async def test_a_topic_that_does_not_exist_is_named_and_not_created(cluster: Cluster) -> None:
    reader: TopicReader[InvokeResult] = TopicReader(cluster.connection, f"{cluster.topics.prefix}typo", decode_result)
    for _ in range(2):
        with pytest.raises(TopicMissing, match="typo"):
            await reader.__aenter__()


async def test_a_broken_record_is_a_problem_and_reading_goes_on(cluster: Cluster, outputs: Outputs) -> None:
    await outputs.raw_results((b"", ()), (b"\xff", ()), (b"[]", ()), (b"{}", ()), (b"\x00\x01", ()))
    await write(outputs, "sound")
    async with ResultReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        names = await all_of(reader)
    assert names[-1] == "sound"
    assert set(names[:-1]) == {"malformed_json", "schema_invalid"}
    assert len(names) == 6


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_no_bytes_can_stop_a_reader(kafka: str, values: list[bytes]) -> None:
    async def write_and_read() -> list[str]:
        async with cluster_of(kafka, f"t{secrets.token_hex(4)}.") as cluster, outputs_of(cluster) as outputs:
            await outputs.raw_results(*((value, ()) for value in values))
            await write(outputs, "sound")
            async with ResultReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
                return await all_of(reader)

    names = asyncio.run(write_and_read())
    assert len(names) == len(values) + 1
    assert names[-1] == "sound"


async def test_expired_records_are_said_and_reading_goes_on_behind_them(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "a", "b", "c")
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    await admin.start()
    try:
        where = TopicPartition(cluster.topics.assistant_messages, 0)
        await admin.delete_records({where: RecordsToDelete(2)})
    finally:
        await admin.close()
    async with ResultReader(cluster.connection, cluster.topics, start={0: 1}, until_end=True) as reader:
        assert await all_of(reader) == ["expired 1-2", "c"]


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(cluster: Cluster, outputs: Outputs) -> None:
    await write(outputs, "a")
    async with ResultReader(cluster.connection, cluster.topics, start={0: 100}) as reader:
        async with asyncio.timeout(WAIT_SECONDS):
            assert [name_of(await anext(reader)) for _ in range(2)] == ["expired 100-0", "a"]


async def test_a_reader_survives_a_broker_that_is_killed_and_restarted(
    private_kafka: PrivateKafka, topics: str
) -> None:
    broker = await private_kafka()
    async with (
        cluster_of(broker.bootstrap_servers, topics) as cluster,
        outputs_of(cluster) as outputs,
        ResultReader(cluster.connection, cluster.topics) as reader,
    ):
        await write(outputs, "before")
        assert name_of(await anext(reader)) == "before"
        waiting = asyncio.ensure_future(anext(reader))
        await broker.kill()
        await broker.restart()
        await write(outputs, "after")
        async with asyncio.timeout(WAIT_SECONDS):
            assert name_of(await waiting) == "after"


async def test_a_reader_may_be_closed_while_its_connection_is_broken(cluster: Cluster) -> None:
    """aiokafka's `stop` raises CancelledError if it finds a fetch that waits to be tried again, and leaves sockets."""
    async with KafkaProxy(cluster.bootstrap_servers) as proxy:
        through = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="reader")
        async with ResultReader(through, cluster.topics) as reader:
            waiting = asyncio.ensure_future(anext(reader))
            broken = proxy.on(do=Cut.BEFORE, client="reader", where=lambda call: call.api == Api.FETCH)
            await broken.hit(3)
            waiting.cancel()
            await asyncio.wait({waiting})
        broken.lift()


async def test_deltas_are_read_as_they_stand_and_by_the_readers_rule(cluster: Cluster, outputs: Outputs) -> None:
    records = [
        flush(answer("lost")[:4], run_id="a", attempt=1),
        flush(answer("b"), run_id="b"),
        flush(answer("won")[:4], run_id="a", attempt=2),
        flush(answer("lost")[4:], run_id="a", attempt=1, first_seq=4),
        flush(answer("won")[2:], run_id="a", attempt=2, first_seq=2),
    ]
    for record in records:
        await outputs.stream(record)
    async with DeltaReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        raw = [found.value async for found in reader if isinstance(found, Read)]
    async with DeltaReader(cluster.connection, cluster.topics, start="beginning", until_end=True) as reader:
        fresh = [(record.run_id, record.attempt, news) async for record, news in reader.fresh()]
    assert raw == records
    assert all(isinstance(value, StreamEvents) for value in raw)
    assert [(run_id, attempt, news.voided, len(news.events)) for run_id, attempt, news in fresh] == [
        ("a", 1, False, 4),
        ("b", 1, False, 7),
        ("a", 2, True, 4),
        ("a", 2, False, 3),
    ]
    assert not any(news.gap for _, _, news in fresh)


async def test_somebodys_open_transaction_does_not_hold_back_deltas(cluster: Cluster, outputs: Outputs) -> None:
    async with transactional_producer(
        cluster.connection, f"{cluster.topics.prefix}foreign", max_request_size=100_000
    ) as foreign:
        await foreign.begin_transaction()
        await foreign.send_and_wait(cluster.topics.stream_deltas, b"foreign", partition=0)
        async with DeltaReader(cluster.connection, cluster.topics) as reader:
            await outputs.stream(flush(answer("seen")))
            async with asyncio.timeout(WAIT_SECONDS):
                found = await anext(reader)
        await foreign.abort_transaction()
    assert isinstance(found, Read)
    assert isinstance(found.value, StreamEvents)
