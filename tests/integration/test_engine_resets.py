"""What operators do to offsets and topics: resets, trimmed inputs, topics made anew, partitions added.

Where it is known what was finished, nothing runs twice and nothing is left out; where that cannot be known, the
partition stays closed and says why.
"""

import asyncio
import json

import pytest

from agentstream.consumers.health import Health
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness
from tests.support.waiting import eventually, patience
from tests.support.workers import Running, plan_of, working

FIRST = ("1", "2", "3")


@pytest.fixture(autouse=True)
def closed_partitions_are_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstream.consumers.partition.CLOSED_DELAY_SECONDS", 0.2)


async def finish_first(cluster: Cluster) -> int:
    """Three requests, finished by a worker that has left; its claim."""
    async with working(plan_of(cluster, GatedHarness(gates_open=True))) as worker:
        await cluster.submit_all(*FIRST)
        await cluster.tail.all_results(*FIRST)
        await worker.stop()
    return (await cluster.committed()).state.claim


async def submit_anew(cluster: Cluster, *run_ids: str) -> None:
    """By a producer that knows nothing of topics that were there before."""
    async with RequestProducer(
        lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), cluster.topics
    ) as producer:
        for run_id in run_ids:
            await producer.submit(InvokeRequest(id=run_id, messages=(Message.of_text("user", "hi"),)))


async def make_anew(cluster: Cluster, *topics: str) -> None:
    """Delete topics and make them again, once Kafka has forgotten them."""
    for topic in topics:
        await cluster.delete_topic(topic)
        await cluster.make_topic(topic)
    async with patience():
        for topic in topics:
            while await cluster.end_of(topic) != 0:
                await asyncio.sleep(0.05)


def status_of(worker: Running, number: int) -> dict[str, object]:
    """What /status says of a partition."""
    health = Health(worker.worker, {}, lambda: asyncio.sleep(0))
    status = json.loads(json.dumps(health.status()))
    return next(found for found in status["partitions"] if found["partition"] == number)


@pytest.mark.parametrize("to", [0, 1, 2, 3])
async def test_after_a_reset_to_anywhere_only_what_is_unfinished_runs(cluster: Cluster, to: int) -> None:
    before = await finish_first(cluster)
    await cluster.submit("unread")
    await cluster.commit(to)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert (await cluster.tail.result("unread")).claim > before
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["unread"]
    await cluster.audit(*FIRST, "unread")


async def test_after_a_reset_to_the_end_what_was_skipped_stays_skipped_and_claims_still_grow(cluster: Cluster) -> None:
    before = await finish_first(cluster)
    await cluster.submit("skipped")
    await cluster.commit(4)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit("5")
        assert (await cluster.tail.result("5")).claim > before
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["5"]
    assert (await cluster.committed()).offset == 5


async def test_a_reset_below_a_trimmed_log_begins_at_its_beginning(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await finish_first(cluster)
    await cluster.submit("unread")
    await cluster.expire_requests(before=2)
    await cluster.commit(0)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("unread")
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["unread"]
    assert "up to 2 requests expired" in caplog.text


async def test_a_run_whose_request_expired_before_it_ended_is_lost_aloud_and_the_rest_goes_on(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The log begins in the midst of what a worker left open."""
    async with working(plan_of(cluster, GatedHarness()), grace_s=0.1) as worker:
        await cluster.submit_all(*FIRST)
        await cluster.until_marked(3)
        await worker.stop()
    await cluster.expire_requests(before=1)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("2", "3")
        await worker.stop()
    assert sorted(run.run_id for run in harness.runs) == ["2", "3"]
    assert "up to 1 requests expired" in caplog.text
    assert (await cluster.committed()).offset == 3


async def test_topics_that_were_all_made_anew_begin_anew(cluster: Cluster) -> None:
    before = await finish_first(cluster)
    await make_anew(cluster, cluster.topics.invoke_requests, *cluster.topics.outputs)
    await submit_anew(cluster, "1", "new")
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.until_committed(2)
        await worker.stop()
    assert [run.run_id for run in harness.runs] == ["1", "new"]
    assert (await cluster.committed()).state.claim > before


@pytest.mark.parametrize("new", [("a",), ("a", "b", "c"), ("a", "b", "c", "d", "e")], ids=len)
async def test_an_input_that_was_made_anew_under_an_old_index_stays_closed_until_that_is_too(
    cluster: Cluster, new: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """The index knows what is finished by offset. As long as fewer new requests had come this was seen; from then on
    the first three of the new ones counted as finished, and had no result ever."""
    await finish_first(cluster)
    await make_anew(cluster, cluster.topics.invoke_requests)
    await submit_anew(cluster, *new)
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        assert "made anew" in await worker.closed()
        assert "partition 0 stays closed" in caplog.text
        assert harness.runs == []
        await make_anew(cluster, cluster.topics.finished_runs)
        await cluster.until_committed(len(new))
        await worker.stop()
    assert [run.run_id for run in harness.runs] == list(new)


async def refresh(worker: Running) -> None:
    """Look for new partitions now; a worker does so every five minutes."""
    await worker.worker.source._consumer._client.force_metadata_update()


async def test_partitions_added_in_the_right_order_are_taken_by_a_worker_that_serves(cluster: Cluster) -> None:
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await worker.owns(0)
        for topic in (*cluster.topics.outputs, cluster.topics.invoke_requests):
            await cluster.grow(topic, 2)
        await refresh(worker)
        await worker.owns(1)
        await submit_anew(cluster, *(str(number) for number in range(8)))
        await eventually(lambda: len(harness.runs) == 8, "all run, on both partitions")
        assert status_of(worker, 1)["closed_because"] is None
        await cluster.until_committed(1, partition=1)
        await worker.stop()


async def test_an_input_grown_before_its_outputs_is_said_to_be_closed_and_opens_by_itself(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await worker.owns(0)
        await cluster.grow(cluster.topics.invoke_requests, 2)
        await refresh(worker)
        why = await worker.closed(1)
        assert why in caplog.text
        assert "topics apply" in why
        assert status_of(worker, 1) == {"partition": 1, "claim": None, "closed_because": why}
        await submit_anew(cluster, *(str(number) for number in range(8)))
        # What lies in the other partition is not held up by it.
        await eventually(lambda: 0 < len(harness.runs) < 8, "partition 0 goes on")
        for topic in cluster.topics.outputs:
            await cluster.grow(topic, 2)
        await worker.owns(1)
        await eventually(lambda: len(harness.runs) == 8, "all run")
        assert status_of(worker, 1)["closed_because"] is None
        await cluster.until_committed(1, partition=1)
        await worker.stop()
