"""What a worker takes and holds: backpressure without losing the membership, holes, duplicates, rebalances.

Each test is the trigger of one rule; the docstring names the fault and what happened, or happens, without the rule.
"""

from dataclasses import replace

import pytest

from agentstream.consumers import claim as claims_module
from agentstream.schemas.headers import last_wins
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api, Call
from tests.support.gated import GatedHarness
from tests.support.history import claims
from tests.support.proxy import KafkaProxy
from tests.support.waiting import eventually
from tests.support.workers import Running, plan_of, quick, working


def poll_at_least_every(worker: Running, seconds: float) -> None:
    """Lower `max.poll.interval.ms`, 5 minutes by default: aiokafka leaves the group when nobody polled for so long."""
    worker.worker.source._consumer._coordinator._max_poll_interval = seconds


async def outlive_the_session(proxy: KafkaProxy) -> None:
    """Wait for so many heartbeats, one every 0.3 s, that the session timeout and the poll interval are well over."""
    await proxy.until_made(Api.HEARTBEAT, "a", 10, since=len(proxy.calls))


def joined_or_left(proxy: KafkaProxy, since: int) -> list[Call]:
    """Every join and leave of a member. Before it is one, a join is refused for the member id, and on a fresh broker
    another one: the coordinator that was just named does not hold its part of the new offsets topic yet."""
    return [*proxy.made(Api.JOIN_GROUP, "a", since=since), *proxy.made(Api.LEAVE_GROUP, "a", since=since)]


async def test_a_run_longer_than_the_session_and_the_poll_interval_costs_no_membership(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    """The interval counts from the last poll. A loop that waits for its runs before it polls again leaves the group in
    the middle of one; raising the interval to fit a run only makes a dead worker be noticed later."""
    harness = GatedHarness()
    plan = replace(quick(plan_of(cluster, harness, through=proxy.bootstrap_servers)), max_in_flight=1)
    async with working(plan) as worker:
        await worker.owns()
        a_member = len(proxy.calls)
        poll_at_least_every(worker, 1.0)
        await cluster.submit("long")
        await harness.started("long")
        await outlive_the_session(proxy)
        await harness.finished("long")
        await cluster.tail.all_results("long")
        assert joined_or_left(proxy, a_member) == []
        await worker.stop()
    assert len(harness.of("long")) == 1
    assert len(claims(await cluster.history())) == 1
    await cluster.audit("long")


async def test_a_full_worker_pauses_and_keeps_its_membership(cluster: Cluster, proxy: KafkaProxy) -> None:
    """Backpressure is `pause()`. A worker that takes everything holds the whole topic in memory; one that stops polling
    loses its partitions, and all its runs start again elsewhere."""
    harness = GatedHarness()
    plan = replace(quick(plan_of(cluster, harness, through=proxy.bootstrap_servers)), max_in_flight=1)
    ids = [f"run-{number}" for number in range(60)]
    async with working(plan) as worker:
        claim = await worker.owns()
        a_member = len(proxy.calls)
        poll_at_least_every(worker, 1.0)
        # 16 may wait for each slot. 60 kB each: a fetch brings four of them, and one more may be under way.
        for run_id in ids:
            await cluster.submit(run_id, text="x" * 60_000)
        await worker.full()
        await outlive_the_session(proxy)
        assert worker.held < 30
        assert joined_or_left(proxy, a_member) == []
        harness.finish_all()
        await cluster.tail.all_results(*ids)
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ids
    assert {result.claim for result in cluster.tail.results} == {claim}
    await cluster.audit(*ids)


async def test_too_many_open_requests_hold_the_intake_of_their_partition_until_some_are_done(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is open travels in the commit's metadata: 4,097 characters of it are a fatal error, and are reached by one
    long run below many short ones."""
    monkeypatch.setattr(claims_module, "MAX_OPEN_OFFSETS", 5)
    harness = GatedHarness()
    ids = [f"run-{number}" for number in range(20)]
    async with working(plan_of(cluster, harness)) as worker:
        await worker.owns()
        for run_id in ids:
            await cluster.submit(run_id, text="x" * 200_000)
        await worker.held_back(0)
        assert worker.held < 10
        harness.finish_all()
        await cluster.tail.all_results(*ids)
        await worker.stop()
    await cluster.audit(*ids)


async def test_holes_in_the_input_are_no_work_and_the_committed_offset_reaches_the_end(cluster: Cluster) -> None:
    """Transaction markers and aborted records have offsets and are never handed out. Counted as open, the committed
    offset would stay below the end for ever, and whoever scales by lag would never see a worker idle. Read uncommitted,
    requests that their caller rolled back would run."""
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit_in_transaction("1", "2", commit=True)
        await cluster.submit_in_transaction("aborted", commit=False)
        await cluster.submit("3")
        await cluster.submit_in_transaction("rolled-back", commit=False)
        await cluster.tail.all_results("1", "2", "3")
        end = await cluster.end_of(cluster.topics.invoke_requests)
        await cluster.until_committed(end)
        await worker.stop()
    assert end == 8  # four requests of which one was rolled back, the last one's two records, and three markers
    assert [run.run_id for run in harness.runs] == ["1", "2", "3"]
    await cluster.audit("1", "2", "3")


async def test_a_request_that_comes_again_does_not_run_again_and_another_body_under_its_id_is_a_dead_letter(
    cluster: Cluster,
) -> None:
    """A caller whose acknowledgement was lost sends again: while the run is under way, after it, and after the
    partition has moved to another worker."""
    harness = GatedHarness()
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit("run", text="hi")
        await harness.started("run")
        await cluster.submit("run", text="hi")
        await cluster.submit("run", text="something else")
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 1)
        await harness.finished("run")
        await cluster.tail.all_results("run")
        await cluster.submit("run", text="hi")
        await cluster.submit("run", text="something else")
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 2)
        await worker.stop()
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit("run", text="hi")
        await cluster.submit("run", text="something else")
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 3)
        await cluster.until_committed(7)
        await worker.stop()
    assert len(harness.of("run")) == 1
    codes = [last_wins(letter.headers)["dlq-error-code"] for letter in cluster.tail.dead_letters]
    assert codes == [b"duplicate_conflict"] * 3
    await cluster.audit("run")


async def test_a_rebalance_restarts_no_run_of_a_partition_that_stays(engine_kafka: str, topics: str) -> None:
    """With the eager protocol every partition is revoked when anyone joins. Runs cancelled at that moment would start
    again, and pay again, at each deploy; waiting for them there cost up to 51 s without results."""
    ours, theirs = GatedHarness(), GatedHarness()
    async with cluster_of(engine_kafka, topics, partitions=2) as cluster, working(plan_of(cluster, ours)) as a:
        await a.owns(0)
        await a.owns(1)
        sent = {}
        for number in range(20):
            request = await cluster.submit(f"run-{number}")
            sent[request.run_id] = request.position.partition
        assert set(sent.values()) == {0, 1}
        for run_id in sent:
            await ours.started(run_id)
        async with working(plan_of(cluster, theirs, name="b")) as b:
            await eventually(lambda: len(b.worker.partitions) == 1, "one partition moves")
            moved = next(iter(b.worker.partitions)).number
            await b.owns(moved)
            stayed = {run_id for run_id, partition in sent.items() if partition != moved}
            assert not any(run.cancelled for run in ours.runs if run.run_id in stayed)
            theirs.finish_all()
            ours.finish_all()
            await cluster.tail.all_results(*sent)
            await b.stop()
        await a.stop()
        assert {run.run_id for run in theirs.runs} == set(sent) - stayed
        assert len(ours.runs) == len(sent)
        # Nobody crashed. Counted as such, three rebalances in the life of a run would fail it with `crash_limit`.
        assert {result.crashes for result in cluster.tail.results} == {0}
        await cluster.audit(*sent)


async def test_requests_that_expire_under_a_full_worker_are_skipped_and_the_rest_is_run(cluster: Cluster) -> None:
    """Retention does not wait for a worker that is paused. Where it reads next is then below the log's start, and every
    fetch fails: a partition that nobody positions anew is read no more."""
    harness = GatedHarness()
    ids = [f"run-{number}" for number in range(60)]
    async with working(replace(plan_of(cluster, harness), max_in_flight=1)) as worker:
        await worker.owns()
        for run_id in ids:
            await cluster.submit(run_id, text="x" * 60_000)
        await worker.full()
        await cluster.expire_requests(before=55)
        harness.finish_all()
        await cluster.tail.all_results(*ids[55:])
        await cluster.until_committed(60)
        await worker.stop()
