"""SIGTERM: started runs may finish within the grace; the rest is redelivered, and nothing is counted as a crash."""

import pytest

from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness
from tests.support.workers import plan_of, working


@pytest.mark.both_loops
async def test_a_worker_that_is_stopped_lets_started_runs_finish_and_leaves_the_others_to_the_next(
    cluster: Cluster,
) -> None:
    """Cancelled at once, every deploy would throw all runs away and pay for them again; started or not, none may be
    lost. The next owner gets the ones that outlived the grace, and those that had not begun."""
    first, second = GatedHarness(), GatedHarness(gates_open=True)
    async with working(plan_of(cluster, first), grace_s=2.0) as worker:
        await cluster.submit("short")
        await cluster.submit("waits", session="short")
        await cluster.submit("long")
        short = await first.started("short")
        await first.started("long")
        await cluster.until_marked(2)
        stopping = worker.begin_stop()
        await worker.draining()
        short.finish()
        await cluster.tail.all_results("short")
        assert not first.of("long")[0].cancelled
        await stopping
    assert first.of("long")[0].cancelled
    left = (await cluster.committed()).state
    assert left.released
    assert {entry.started for entry in left.open.values()} == {False}
    async with working(plan_of(cluster, second)) as worker:
        await cluster.tail.all_results("long", "waits")
        await worker.stop()
    results = {result.run_id: result for result in cluster.tail.results}
    assert [results[run_id].crashes for run_id in ("short", "waits", "long")] == [0, 0, 0]
    assert {run.run_id for run in second.runs} == {"long", "waits"}
    assert {run.run_id for run in first.runs} == {"short", "long"}
    ends = [
        (record.run_id, event.type, getattr(event, "reason", None))
        for record in cluster.tail.events
        for event in record.events
        if event.type in ("run.retrying", "run.ended")
    ]
    assert ("long", "run.retrying", "draining") in ends
    assert sorted(run_id for run_id, kind, _ in ends if kind == "run.ended") == ["long", "short", "waits"]
    await cluster.audit("short", "waits", "long")
