"""A bad network: connections are cut in mid-request and in mid-answer, and coordinators do not know what they hold."""

import random

import pytest

from tests.support.cluster import cluster_of
from tests.support.frames import Api, Call, setting
from tests.support.gated import GatedHarness
from tests.support.proxy import Cut, KafkaProxy, Rewrite
from tests.support.waiting import eventually
from tests.support.workers import plan_of, quick, working

RUNS = 150
SESSIONS = 20
PERCENT = 5


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_network_that_cuts_connections_costs_no_result_and_repeats_none(
    engine_kafka: str, topics: str, proxy: KafkaProxy, seed: int
) -> None:
    """Every request of Kafka's is met by a cut sooner or later: before the broker saw it, or after it did what was
    asked. Each one in itself is easy; that none of a worker's loops dies of any is what this is for."""
    dice = random.Random(seed)

    def unlucky(_: Call) -> bool:
        return dice.random() < PERCENT / 100

    ids = [f"run-{number}" for number in range(RUNS)]
    async with cluster_of(engine_kafka, topics, partitions=4) as cluster:
        ours, theirs = GatedHarness(gates_open=True), GatedHarness(gates_open=True)
        async with working(quick(plan_of(cluster, ours, through=proxy.bootstrap_servers))) as a:
            async with working(quick(plan_of(cluster, theirs, name="b", through=proxy.bootstrap_servers))) as b:
                # Who cannot connect at the start says so and ends; that is not what is asked here.
                await eventually(lambda: a.owned() == b.owned() == 2, "both own two partitions")
                rules = [
                    proxy.on(do=Cut.BEFORE, where=unlucky),
                    proxy.on(do=Cut.AFTER, where=unlucky),
                    proxy.on(Api.OFFSET_FETCH, do=Rewrite(setting(error_code=14, topics=[])), where=unlucky),
                    proxy.on(Api.HEARTBEAT, do=Rewrite(setting(error_code=27)), where=unlucky),
                    proxy.on(Api.END_TXN, do=Rewrite(setting(error_code=16)), where=unlucky),
                ]
                for number, run_id in enumerate(ids):
                    await cluster.submit(run_id, session=f"session-{number % SESSIONS}")
                await cluster.tail.until(lambda: len(cluster.tail.results) >= RUNS // 2)
                await b.stop()
            await cluster.tail.all_results(*ids)
            for rule in rules:
                rule.lift()
            await eventually(lambda: a.owned() == 4, "the other's partitions are taken over")
            for partition in range(4):
                await cluster.until_committed(
                    await cluster.end_of(cluster.topics.invoke_requests, partition), partition
                )
            await a.stop()
        assert all(rule.hits for rule in rules[:2])
        await cluster.audit(*ids)
