"""A worker and a caller whose spans go to one real receiver."""

from collections.abc import AsyncIterator, Iterator

import pytest

from agentstream.infra.compose import WorkerPlan
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from agentstream.schemas.trace import TraceContext
from tests.chaos.inside import plan_of
from tests.support.cluster import Cluster
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.spans import assert_well_formed, tree
from tests.support.tracing import exporting, of_trace

GIVEN = TraceContext(trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id="00f067aa0ba902b7", baggage="c=d")


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as one:
        yield one


@pytest.fixture
async def plan(cluster: Cluster, receiver: OtlpReceiver) -> AsyncIterator[WorkerPlan]:
    async with exporting(plan_of(cluster.bootstrap_servers, cluster.topics.prefix), receiver) as one:
        yield one


@pytest.fixture
async def caller(cluster: Cluster, plan: WorkerPlan) -> AsyncIterator[RequestProducer]:
    """Give a producer whose spans go where the worker's go."""
    async with RequestProducer(
        lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES),
        cluster.topics,
        plan.tracer_provider.get_tracer("caller"),
    ) as one:
        yield one


async def arrived(cluster: Cluster, receiver: OtlpReceiver, trace_id: str) -> list[str]:
    """Wait until the `process` span is there, which ends last; returns the tree, with plain names of topics."""
    await receiver.until(
        lambda: any(span.name.startswith("process") for span in of_trace(receiver, trace_id)), "the trace arrives"
    )
    spans = of_trace(receiver, trace_id)
    assert_well_formed(spans)
    return [line.replace(cluster.topics.prefix, "") for line in tree(spans)]
