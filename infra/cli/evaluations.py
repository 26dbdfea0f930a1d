"""Where outcomes of evaluators go: onto their topic, and as spans where OpenTelemetry's variables name a place."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.consumers.replay.comparing.spans import trace_evaluations
from agentstream.infra.cli.context import Cluster
from agentstream.infra.cli.screen import Screen
from agentstream.infra.telemetry.environment import Destination, telemetry_settings
from agentstream.infra.telemetry.opening import Telemetry, open_telemetry
from agentstream.producers.evaluations import EvaluationProducer
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.topics import MAX_REQUEST_BYTES

Published = Callable[[Callable[[], Iterator[EvaluationResult]]], Awaitable[int]]
"""Is given what gives the outcomes, as often as it is called; returns how many there were."""


@asynccontextmanager
async def evaluations_published(cluster: Cluster, *, service: str, recording: str) -> AsyncIterator[Published]:
    """Opens what it takes. Raises TopicMissing, KafkaError, OSError, TimeoutError, and so does what it gives.

    Spans that were lost are told of at the end: the log, which says so of a worker, is silent in a command for people.
    """
    topic = Tail(lambda: tail_consumer(cluster.connection, read_committed=True), cluster.topics.evaluations)
    await topic.open()
    await topic.close()
    telemetry: Telemetry | None = None
    async with AsyncExitStack() as stack:
        producer = EvaluationProducer(
            lambda: idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES), cluster.topics
        )
        await stack.enter_async_context(producer)
        spans, tracer = telemetry_settings(service=service), None
        if not spans.disabled and spans.traces.endpoint is not None:
            telemetry = await stack.enter_async_context(open_telemetry(replace(spans, metrics=Destination())))
            tracer = telemetry.tracer_provider.get_tracer("agentstream")

        async def publish(results: Callable[[], Iterator[EvaluationResult]]) -> int:
            sent = await producer.publish(results())
            if tracer is not None:
                trace_evaluations(tracer, results(), recording=recording)
            return sent

        yield publish
    for delivery in telemetry.deliveries if telemetry is not None else ():
        if line := delivery.last_line():
            Screen().note(line, "yellow")
