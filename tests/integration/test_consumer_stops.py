"""A consumer ends while a fetch waits to be tried again. On a real Kafka, whose answers are cut off."""

import pytest

from agentstream.consumers import index
from agentstream.consumers.index import IndexUnreadableError, load_index
from agentstream.consumers.kafka import Consumer, log_consumer
from agentstream.producers.connection import KafkaConnection
from tests.support.cluster import Cluster
from tests.support.frames import Api
from tests.support.gated import GatedHarness
from tests.support.proxy import Cut, KafkaProxy
from tests.support.waiting import eventually
from tests.support.workers import plan_of, working


async def test_an_index_that_cannot_be_read_in_time_says_so_and_leaves_nothing_behind(
    cluster: Cluster, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same cancellation, out of the reader of the index, looked to the partition as its own, and it ended for good:
    paused, and nobody noticed."""

    def patient(connection: KafkaConnection) -> Consumer:
        consumer = log_consumer(connection)
        consumer._retry_backoff_ms = 60_000
        return consumer

    monkeypatch.setattr(index, "log_consumer", patient)
    monkeypatch.setattr(index, "READ_SECONDS", 1.0)
    await cluster.submit("run")
    harness = GatedHarness(gates_open=True)
    async with working(plan_of(cluster, harness)) as worker:
        await cluster.tail.all_results("run")
        await worker.stop()
    proxy.on(Api.FETCH, client="r", do=Cut.BEFORE)
    with pytest.raises(IndexUnreadableError):
        await load_index(
            KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="r"), cluster.topics.finished_runs, 0
        )
    await eventually(lambda: proxy.open_connections("r") == 0, "every connection is closed")
