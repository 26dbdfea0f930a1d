"""A partition changes hands: what was committed is seen, what was started is counted, no zombie beats a live owner.

Each test is the trigger of one rule; the docstring names the fault and what happened, or happens, without the rule.
"""

import signal

import pytest

from tests.support.cluster import Cluster
from tests.support.frames import Api, setting
from tests.support.gated import GatedHarness
from tests.support.history import claims
from tests.support.proxy import Hold, KafkaProxy, Rewrite
from tests.support.worker_process import worker_process
from tests.support.workers import plan_of, quick, working


async def test_a_zombie_that_wakes_fences_nobody_and_starts_nothing(cluster: Cluster, proxy: KafkaProxy) -> None:
    """SIGSTOP past the session timeout, then SIGCONT. The zombie's open run ends and is committed: fenced. If it opened
    a new producer at once it would fence the live owner, and then claim the partition from it. And the run that waits
    for a slot would start, though the live owner runs it too, or did."""
    harness = GatedHarness()
    async with worker_process(cluster, "zombie", through=proxy.bootstrap_servers) as zombie:
        await cluster.submit("open")
        await zombie.until_started("open")
        await cluster.submit("next")
        # A duplicate is committed at once, and shows that what stands before it was taken.
        await cluster.submit("open")
        await cluster.until_seen(3)
        await cluster.until_marked(1)
        zombie.send(signal.SIGSTOP)
        async with working(quick(plan_of(cluster, harness, name="live"))) as live:
            claim = await live.owns()
            await harness.started("open")
            before = len(proxy.calls)
            await zombie.finish("open")
            zombie.send(signal.SIGCONT)
            # It is back once it has joined again, and has its answer once it goes on with heartbeats.
            await proxy.until_made(Api.JOIN_GROUP, "zombie", 1, since=before)
            joined = len(proxy.calls)
            await proxy.until_made(Api.HEARTBEAT, "zombie", 3, since=joined)
            assert proxy.made(Api.INIT_PRODUCER_ID, "zombie", since=before) == []
            harness.finish_all()
            await cluster.tail.all_results("open", "next")
            assert {result.claim for result in cluster.tail.results} == {claim}
            zombie.send(signal.SIGTERM)
            assert await zombie.ended() == 0
            await live.stop()
    assert zombie.started == ["open"]
    assert len(claims(await cluster.history())) == 2
    await cluster.audit("open", "next")


async def test_a_partition_kept_after_it_was_elsewhere_is_not_read_before_a_transaction_proved_it_ours(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    """A worker that was cut off for longer than its session comes back after another one owned its partition and left.
    It is told "you own it", and never that it did not. Read on at once, it would run twice whatever it takes before
    its first commit is fenced."""
    ours, theirs = GatedHarness(), GatedHarness()
    async with working(quick(plan_of(cluster, ours, through=proxy.bootstrap_servers))) as cut_off:
        first = await cut_off.owns()
        await cluster.submit("open")
        await ours.started("open")
        await cluster.until_marked(1)
        fetches = proxy.on(Api.FETCH, do=Rewrite(setting(topics=[])))
        silence = proxy.on(do=Hold.REQUEST)
        async with working(quick(plan_of(cluster, theirs, name="b"))) as other:
            second = await other.owns()
            await theirs.finished("open")
            await cluster.tail.all_results("open")
            await other.stop()
        await cluster.submit("new")
        back = len(proxy.calls)
        silence.lift()
        await proxy.until_made(Api.SYNC_GROUP, "a", 1, since=back)
        # Heartbeats begin once the assignment was taken in. What it fetches from now on it fetches as "kept".
        await proxy.until_made(Api.HEARTBEAT, "a", 1, since=len(proxy.calls))
        fetches.lift()
        await ours.finished("new")
        await cluster.tail.all_results("new")
        await cut_off.stop()
    assert [run.run_id for run in ours.runs] == ["open", "new"]
    assert ours.of("open")[0].cancelled
    new = await cluster.tail.result("new")
    assert first < second < new.claim
    assert (await cluster.tail.result("open")).claim == second
    await cluster.audit("open", "new")


async def test_what_an_owner_commits_while_it_is_fenced_is_seen_by_the_next_one(
    cluster: Cluster, proxy: KafkaProxy
) -> None:
    """Read before the fence, 19 of 200 offsets were stale: the old owner could still commit. Here it does, at the very
    moment between the next owner's heartbeat and its fence."""
    ours, theirs = GatedHarness(), GatedHarness()
    async with working(quick(plan_of(cluster, ours, through=proxy.bootstrap_servers))) as old:
        await old.owns()
        await cluster.submit("late")
        await ours.started("late")
        await cluster.until_marked(1)
        silence = proxy.on(Api.HEARTBEAT, Api.JOIN_GROUP, do=Hold.REQUEST, client="a")
        fence = proxy.on(
            Api.INIT_PRODUCER_ID,
            do=Hold.REQUEST,
            client="b",
            where=lambda call: call.request.transactional_id is not None,
        )
        async with working(quick(plan_of(cluster, theirs, name="b", through=proxy.bootstrap_servers))) as new:
            await fence.hit()
            await ours.finished("late")
            await cluster.tail.all_results("late")
            committed = await cluster.committed()
            fence.lift()
            claim = await new.owns()
            history = await cluster.history()
            taken_over = next(commit for commit in history if commit.state.claim == claim)
            assert taken_over.offset == committed.offset
            assert taken_over.state.open == {}
            silence.lift()
            await new.stop()
    assert theirs.runs == []


@pytest.mark.parametrize("number", [1, 2])
async def test_workers_that_are_killed_leave_strikes_and_the_result_says_so(cluster: Cluster, number: int) -> None:
    """The result must say how many attempts were lost with a worker, and a request that kills its worker must be found
    out: each owner that vanishes with a run under way adds a strike to it."""
    for killed in range(number):
        async with worker_process(cluster, f"killed-{killed}") as process:
            if killed == 0:
                await cluster.submit("run")
            await process.until_started("run")
            await cluster.until_marked(1)
            process.send(signal.SIGKILL)
            await process.ended()
    harness = GatedHarness(gates_open=True)
    async with working(quick(plan_of(cluster, harness))) as worker:
        assert (await cluster.tail.result("run")).crashes == number
        await worker.stop()
    await cluster.audit("run")


async def test_a_worker_that_released_its_partition_leaves_no_strikes(cluster: Cluster) -> None:
    """A deploy is no crash: three of them in the life of an hour-long run would else fail it with `crash_limit`."""
    async with worker_process(cluster, "drained") as process:
        await cluster.submit("run")
        await process.until_started("run")
        await cluster.until_marked(1)
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert (await cluster.tail.result("run")).crashes == 0
        await worker.stop()
    assert (await cluster.committed()).state.released
    drained = [event for record in cluster.tail.events for event in record.events if event.type == "run.retrying"]
    assert [getattr(event, "reason", None) for event in drained] == ["draining"]
    await cluster.audit("run")
