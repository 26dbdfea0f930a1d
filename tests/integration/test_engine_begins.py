"""A transaction begins while the deltas of its runs are on their way: sooner, and with nothing less promised."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.errors import ConcurrentTransactions, GroupAuthorizationFailedError, ProducerFenced

from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import Fenced, WriteError
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.records import OutgoingRecord
from tests.support.cluster import Cluster
from tests.support.complaints import no_complaints
from tests.support.frames import Api, Call, setting
from tests.support.gated import GatedHarness
from tests.support.proxy import Hold, KafkaProxy, Rewrite
from tests.support.workers import plan_of, working


@pytest.fixture
async def writer(cluster: Cluster, proxy: KafkaProxy) -> AsyncIterator[ResultWriter]:
    """Give an open writer, through the proxy."""
    writer = writer_of(cluster, proxy.bootstrap_servers)
    await writer.open()
    yield writer
    await writer.close()


def writer_of(cluster: Cluster, bootstrap_servers: str) -> ResultWriter:
    return ResultWriter(
        KafkaConnection(bootstrap_servers=bootstrap_servers, client_id="writer"),
        cluster.group_id,
        transactional_id=cluster.group_id,
        max_record_bytes=1_000_000,
    )


def outputs(cluster: Cluster) -> list[tuple[str, int]]:
    return [(cluster.topics.assistant_messages, 0), (cluster.topics.finished_runs, 0)]


def result_of(cluster: Cluster, key: bytes) -> OutgoingRecord:
    return OutgoingRecord(topic=cluster.topics.assistant_messages, partition=0, key=key, value=b"x")


def offset_of(cluster: Cluster, offset: int) -> InputOffset:
    return InputOffset(topic=cluster.topics.invoke_requests, partition=0, offset=offset, metadata="")


async def visible(cluster: Cluster, *keys: bytes) -> None:
    """Wait until a reader of committed records sees just these."""
    await cluster.tail.until(lambda: len(cluster.tail.of("assistant_messages")) >= len(keys))
    assert [record.key for record in cluster.tail.of("assistant_messages")] == list(keys)


async def test_it_begins_before_the_deltas_are_acknowledged_and_ends_after(cluster: Cluster, proxy: KafkaProxy) -> None:
    harness = GatedHarness()

    def of_deltas(call: Call) -> bool:
        return any(topic == cluster.topics.stream_deltas for topic, *_ in call.request.topics)

    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await cluster.submit("run")
        await harness.started("run")
        # The claim, and the mark that the run has started.
        await proxy.until_made(Api.END_TXN, "a", 2)
        so_far = len(proxy.calls)
        deltas = proxy.on(Api.PRODUCE, do=Hold.REQUEST, where=of_deltas)
        harness.of("run")[0].finish()
        await deltas.hit()
        await proxy.until_made(Api.ADD_PARTITIONS_TO_TXN, "a", 1, since=so_far)
        await proxy.until_made(Api.ADD_OFFSETS_TO_TXN, "a", 1, since=so_far)
        assert proxy.made(Api.END_TXN, "a", since=so_far) == []
        assert cluster.tail.results == []
        deltas.lift()
        assert (await cluster.tail.result("run")).deltas == "complete"
        await worker.stop()
    await cluster.audit("run")


async def test_no_record_goes_before_all_of_the_beginning_is_answered(
    cluster: Cluster, proxy: KafkaProxy, writer: ResultWriter
) -> None:
    """Brokers refuse a record while the group of the offset is being added, and aiokafka tries it again 20 ms later."""
    answer = proxy.on(Api.ADD_OFFSETS_TO_TXN, do=Hold.ANSWER)
    writer.begin(outputs(cluster))
    committing = asyncio.create_task(writer.commit([result_of(cluster, b"run")], offset_of(cluster, 1)))
    await answer.hit()
    # Both have gone, in this order down one connection, and the second waits behind the first.
    await proxy.until_made(Api.ADD_PARTITIONS_TO_TXN, "writer", 1)
    group, partitions = proxy.calls[-2:]
    assert (group.api, partitions.api) == (Api.ADD_OFFSETS_TO_TXN, Api.ADD_PARTITIONS_TO_TXN)
    assert group.connection == partitions.connection
    answer.lift()
    await committing
    await visible(cluster, b"run")
    assert len(proxy.made(Api.ADD_OFFSETS_TO_TXN, "writer")) == 1
    assert len(proxy.made(Api.ADD_PARTITIONS_TO_TXN, "writer")) == 1


async def test_one_that_has_begun_holds_up_no_reader_and_no_next_owner(
    cluster: Cluster, proxy: KafkaProxy, writer: ResultWriter
) -> None:
    """It may wait ten seconds for deltas, or for ever if its worker dies: nobody else must wait for it."""
    writer.begin(outputs(cluster))
    await proxy.until_made(Api.ADD_PARTITIONS_TO_TXN, "writer", 1)
    other = ResultWriter(
        KafkaConnection(bootstrap_servers=cluster.bootstrap_servers),
        f"{cluster.group_id}-other",
        transactional_id=f"{cluster.group_id}-other",
        max_record_bytes=1_000_000,
    )
    await other.open()
    await other.commit([result_of(cluster, b"of another")], offset_of(cluster, 1))
    await other.close()
    await visible(cluster, b"of another")
    next_owner = writer_of(cluster, cluster.bootstrap_servers)
    await next_owner.open()
    with pytest.raises(Fenced):
        await writer.commit([result_of(cluster, b"of a zombie")], offset_of(cluster, 2))
    next_owner.begin(outputs(cluster))
    await next_owner.commit([result_of(cluster, b"of the owner")], offset_of(cluster, 1))
    await next_owner.close()
    await visible(cluster, b"of another", b"of the owner")


@pytest.mark.parametrize("error", [GroupAuthorizationFailedError, ProducerFenced])
async def test_what_fails_at_the_beginning_fails_the_commit_and_leaves_no_error_that_nobody_saw(
    cluster: Cluster, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    """aiokafka asks one thing at a time. Refused the group, it forgets what else was to be added, and looked in vain
    for the partitions that were answered next."""
    refusal = setting(error_code=47 if error is ProducerFenced else GroupAuthorizationFailedError.errno)
    with no_complaints(caplog):
        writer = writer_of(cluster, proxy.bootstrap_servers)
        await writer.open()
        refused = proxy.on(Api.ADD_OFFSETS_TO_TXN, do=Rewrite(refusal))
        added = proxy.on(Api.ADD_PARTITIONS_TO_TXN, do=Rewrite(lambda _: None))
        writer.begin(outputs(cluster))
        await refused.answered()
        await added.answered()
        with pytest.raises(WriteError, match=error.__name__):
            await writer.commit([result_of(cluster, b"run")], offset_of(cluster, 1))
        await writer.close()
        del writer


async def test_a_group_that_could_not_be_added_ahead_is_added_before_the_offset(
    cluster: Cluster, proxy: KafkaProxy, writer: ResultWriter
) -> None:
    """The brokers still complete the last transaction when they are asked for the group, and no more when they are
    asked for the partitions."""
    proxy.on(Api.ADD_OFFSETS_TO_TXN, do=Rewrite(setting(error_code=ConcurrentTransactions.errno)), times=1)
    writer.begin(outputs(cluster))
    await writer.commit([result_of(cluster, b"run")], offset_of(cluster, 1))
    await visible(cluster, b"run")
    assert (await cluster.committed()).offset == 1
    assert len(proxy.made(Api.ADD_OFFSETS_TO_TXN, "writer")) == 2


async def test_a_writer_that_has_begun_nothing_or_twice_commits_all_the_same(
    cluster: Cluster, writer: ResultWriter
) -> None:
    await writer.commit([result_of(cluster, b"none")], offset_of(cluster, 1))
    writer.begin(outputs(cluster))
    writer.begin(outputs(cluster))
    await writer.commit([result_of(cluster, b"twice")], offset_of(cluster, 2))
    writer.begin(outputs(cluster))
    await writer.commit([], offset_of(cluster, 3))
    await visible(cluster, b"none", b"twice")
