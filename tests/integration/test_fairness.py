"""How far one busy session can hold the others of its partition back: no further than what the worker holds at once."""

from dataclasses import replace

import pytest

from agentstream.consumers import source as source_module
from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness
from tests.support.workers import plan_of, working

SLOTS = 4
WINDOW = SLOTS * 16
POLL = 16


async def test_a_busy_session_holds_others_back_only_beyond_what_the_worker_holds(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that held all of the busy session would have no end to its memory; one with a single lane for a
    partition would let nobody else run before it. In small: 64 requests are held where it is 1,024 by default."""
    monkeypatch.setattr(source_module, "MAX_POLL_RECORDS", POLL)
    harness = GatedHarness()
    busy = [f"busy-{number}" for number in range(180)]
    async with working(replace(plan_of(cluster, harness), max_in_flight=SLOTS)) as worker:
        await worker.owns()
        for run_id in busy[:30]:
            await cluster.submit(run_id, session="busy")
        await cluster.submit("near")
        for run_id in busy[30:150]:
            await cluster.submit(run_id, session="busy")
        await cluster.submit("far")
        for run_id in busy[150:]:
            await cluster.submit(run_id, session="busy")
        # Within the window nobody waits for the busy session, whose first run is under way all the time.
        await harness.finished("near")
        await cluster.tail.all_results("near")
        # Beyond it everybody does: the worker takes no more, and one slot of four is used.
        await worker.full()
        assert worker.held < WINDOW + POLL
        assert [run.run_id for run in harness.runs] == ["busy-0", "near"]
        # It moves on with the busy session: whoever waits is read long before all that is ahead has run.
        harness.finish_all()
        await cluster.tail.all_results("near", "far", *busy)
        await worker.stop()
    started = [run.run_id for run in harness.runs]
    assert 150 - (WINDOW + POLL) <= started.index("far") - 1 < 150
    assert [run_id for run_id in started if run_id.startswith("busy")] == busy
    await cluster.audit("near", "far", *busy)
