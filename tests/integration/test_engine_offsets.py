"""What a new owner finds of the group's offsets: unknown, lost, reset, expired, foreign.

Each test is the trigger of one rule; the docstring names the fault and what happened, or happens, without the rule.
"""

from dataclasses import replace

import pytest

from tests.support.cluster import Cluster
from tests.support.frames import Api, Change, setting
from tests.support.gated import GatedHarness
from tests.support.proxy import KafkaProxy, Rewrite
from tests.support.workers import plan_of, working

FIRST = ("1", "2", "3")


async def finish_first(cluster: Cluster) -> None:
    """Three requests, finished by a worker that has left."""
    async with working(plan_of(cluster, GatedHarness(gates_open=True))) as worker:
        await cluster.submit_all(*FIRST)
        await cluster.tail.all_results(*FIRST)
        await worker.stop()


def absent(response: object) -> None:
    """An OffsetFetch answer that says nothing of the partition."""
    setting(topics=[])(response)


@pytest.mark.parametrize(
    "change",
    [setting(error_code=14, topics=[]), setting(error_code=16, topics=[]), absent],
    ids=["coordinator loading", "not coordinator", "nothing said"],
)
async def test_a_coordinator_that_does_not_know_the_offset_is_asked_again(
    cluster: Cluster, proxy: KafkaProxy, change: Change
) -> None:
    """After a broker restart OffsetFetch answers 14 or 16 at its top level, without topics. aiokafka reads that as "no
    committed offset"; believed, partitions restarted at 0 and 37 results were written twice."""
    await finish_first(cluster)
    left = await cluster.committed()
    unsure = proxy.on(Api.OFFSET_FETCH, do=Rewrite(change), times=2)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await unsure.hit(2)
        await cluster.submit("4")
        await cluster.tail.all_results("4")
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["4"]
    history = await cluster.history()
    taken_over = next(commit for commit in history if commit.state.claim > left.state.claim)
    assert taken_over.offset == left.offset
    assert taken_over.state.next_offset == left.state.next_offset
    await cluster.audit(*FIRST, "4")


async def test_after_offsets_were_reset_nothing_runs_twice_and_claims_still_grow(cluster: Cluster) -> None:
    """An operator's reset leaves an offset without metadata. Counted from the metadata alone, claims would start again
    at 1, and readers, who keep the attempt with the greatest claim, would ignore every later run."""
    await finish_first(cluster)
    before = (await cluster.committed()).state.claim
    await cluster.commit(0)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit("4")
        assert (await cluster.tail.result("4")).claim > before
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["4"]
    await cluster.audit(*FIRST, "4")


@pytest.mark.parametrize("window", [1, 10_000])
async def test_a_group_that_lost_its_offsets_starts_at_the_earliest_and_runs_nothing_twice(
    cluster: Cluster, window: int
) -> None:
    """Offsets expire, groups are deleted: OffsetFetch then answers -1 with code 0. What is finished is known by request
    offset from the index of finished runs, all of it, however small the window that duplicates are looked up in."""
    await finish_first(cluster)
    await cluster.submit("unread")
    await cluster.delete_group()
    harness = GatedHarness(gates_open=True)
    plan = replace(plan_of(cluster, harness), index_window=window)
    async with working(plan) as worker:
        await cluster.tail.all_results("unread")
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["unread"]
    await cluster.audit(*FIRST, "unread")


async def test_requests_that_expired_unread_are_skipped_and_the_rest_is_run(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The committed offset lies below the log's start after retention: a position there can never be fetched."""
    async with working(plan_of(cluster, GatedHarness())) as worker:
        await worker.owns()
        await worker.stop()
    await cluster.submit_all(*FIRST)
    await cluster.expire_requests(before=2)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("3")
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["3"]
    assert "up to 2 requests expired" in caplog.text


async def test_an_offset_beyond_the_end_of_the_log_keeps_the_partition_closed(cluster: Cluster) -> None:
    """The topic was deleted and made anew: the offset speaks of other requests. Starting anywhere would be a guess, and
    starting at the end would skip requests without a trace."""
    await cluster.submit("unread")
    await cluster.commit(7)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert "beyond the log's end" in await worker.closed()
        await worker.stop()
    assert harness.runs == []
    assert (await cluster.committed()).offset == 7
    await cluster.commit(0)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("unread")
        await worker.stop()


@pytest.mark.parametrize("metadata", ['{"v":2,"claims":[]}', "a note of another tool"])
async def test_metadata_of_a_version_it_does_not_know_keeps_the_partition_closed(
    cluster: Cluster, metadata: str
) -> None:
    """A downgrade: which requests are open stands in metadata that only the newer version reads. Read as empty, what is
    open would be lost; read as nothing committed, what is finished would run again."""
    await finish_first(cluster)
    await cluster.submit("unread")
    await cluster.commit(2, metadata)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert "metadata" in await worker.closed()
        await worker.stop()
    assert harness.runs == []
    left = await cluster.committed()
    assert (left.offset, left.metadata) == (2, metadata)


async def test_a_partition_without_all_its_outputs_stays_closed_until_they_exist(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input was grown before its outputs. Everything that comes of a request goes to its partition number; without
    the check a run would end, and its result could not be written."""
    monkeypatch.setattr("agentstream.consumers.partition.CLOSED_DELAY_SECONDS", 0.2)
    await cluster.grow(cluster.topics.invoke_requests, 2)
    outputs = [topic for topic in cluster.topics.outputs if topic != cluster.topics.finished_runs]
    for topic in outputs:
        await cluster.grow(topic, 2)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert cluster.topics.finished_runs in await worker.closed(1)
        await worker.owns(0)
        await cluster.grow(cluster.topics.finished_runs, 2)
        await worker.owns(1)
        await worker.stop()
