"""Deltas never ride in a transaction, so they can fail by themselves; and they must not take the result with them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api, Call, setting
from tests.support.gated import GatedHarness
from tests.support.proxy import Cut, Hold, KafkaProxy, Rewrite
from tests.support.workers import plan_of, working

OUT_OF_ORDER = 45


def is_delta(call: Call) -> bool:
    """A produce request outside any transaction."""
    return call.request.transactional_id is None


async def test_a_result_does_not_wait_for_deltas_that_cannot_be_written(
    engine_kafka: str, topics: str, proxy: KafkaProxy
) -> None:
    """Idempotent batches never expire: a result that waits for its deltas waits for ever while their topic is gone, or
    its brokers take nothing. It waits ten seconds, and says `deltas: partial`."""

    async def finish_one(cluster: Cluster, through: str | None, break_deltas: Callable[[], Awaitable[None]]) -> None:
        harness = GatedHarness()
        async with working(plan_of(cluster, harness, through=through)) as worker:
            await cluster.submit("before")
            await harness.finished("before")
            assert (await cluster.tail.result("before")).deltas == "complete"
            await break_deltas()
            await cluster.submit("run")
            await harness.finished("run")
            result = await cluster.tail.result("run")
            assert (result.status, result.text, result.deltas) == ("completed", "begun done", "partial")
            assert result.last_seq == -1
            await worker.stop()
        assert [len(harness.of(run_id)) for run_id in ("before", "run")] == [1, 1]

    async with cluster_of(engine_kafka, f"{topics}1.") as gone, cluster_of(engine_kafka, f"{topics}2.") as silent:

        async def delete() -> None:
            await gone.delete_topic(gone.topics.stream_deltas)

        async def hold() -> None:
            proxy.on(Api.PRODUCE, do=Hold.REQUEST, where=is_delta)

        await asyncio.gather(finish_one(gone, None, delete), finish_one(silent, proxy.bootstrap_servers, hold))


async def test_deltas_that_their_topic_refuses_are_given_up_at_once(cluster: Cluster) -> None:
    """A record above the topic's limit will never be taken: sent again and again it would hold up all that follows."""
    await cluster.configure(cluster.topics.stream_deltas, max_message_bytes=10_000)
    harness = GatedHarness()
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.submit_all("large", "small")
        await harness.started("small")
        # Alone, since the refusal is one of the whole batch.
        await cluster.tail.until(lambda: {record.run_id for record in cluster.tail.events} == {"large", "small"})
        await harness.finished("large", "x" * 40_000)
        result = await cluster.tail.result("large")
        assert (result.status, result.deltas) == ("completed", "partial")
        assert result.last_seq >= 0
        await harness.finished("small")
        assert (await cluster.tail.result("small")).deltas == "complete"
        await worker.stop()


@pytest.mark.parametrize("cut", [False, True], ids=["refused for ever", "cut off"])
async def test_a_broken_delta_producer_is_replaced_and_what_was_not_acknowledged_is_sent_again_in_order(
    cluster: Cluster, proxy: KafkaProxy, *, cut: bool
) -> None:
    """An idempotent producer that has lost its sequence raises for ever. The next one sends again what nobody
    acknowledged: the transcript has no gap, and the result says `complete`."""

    def out_of_order(response: object) -> None:
        broken = [
            (topic, [(partition, OUT_OF_ORDER, *rest) for partition, _, *rest in partitions])
            for topic, partitions in getattr(response, "topics")  # noqa: B009 - an untyped struct
        ]
        setting(topics=broken)(response)

    harness = GatedHarness()
    async with working(plan_of(cluster, harness, through=proxy.bootstrap_servers)) as worker:
        await cluster.submit("run")
        await harness.started("run")
        broken = proxy.on(Api.PRODUCE, do=Cut.AFTER if cut else Rewrite(out_of_order), where=is_delta, times=1)
        await harness.finished("run")
        await broken.hit()
        result = await cluster.tail.result("run")
        await worker.stop()
    assert (result.status, result.deltas) == ("completed", "complete")
    assert len(harness.of("run")) == 1
    await cluster.audit("run")
