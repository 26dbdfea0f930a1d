"""A client for the commands that ask agents."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from opentelemetry.trace import NoOpTracer, Tracer

from agentstream.consumers.client import AgentClient
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.screen import Screen
from agentstream.infra.telemetry.delivery import Delivery
from agentstream.infra.telemetry.environment import Destination, telemetry_settings
from agentstream.infra.topic_admin import topic_admin
from agentstream.infra.tracing import SCOPE

SERVICE = "agentstream-client"
"""In the traces of requests that are sent from here, unless OTEL_SERVICE_NAME says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where requests go."""

    cluster: Cluster
    """The cluster."""
    max_request_bytes: int
    """Largest request."""


def where_to(context: Context) -> Where:
    """By the settings, and with logs out of the way. Raises SettingsError."""
    settings = context.settings()
    context.quiet_logs(settings)
    return Where(cluster=context.cluster(settings), max_request_bytes=settings.max_request_bytes)


@asynccontextmanager
async def calling(where: Where) -> AsyncIterator[AgentClient]:
    """A client that is connected."""
    async with topic_admin(where.cluster.connection):
        pass  # says within 10 s that nobody answers; a producer takes 40 s
    async with (
        _tracer() as tracer,
        AgentClient(
            connection=where.cluster.connection,
            topic_prefix=where.cluster.topics.prefix,
            max_request_bytes=where.max_request_bytes,
            tracer=tracer,
        ) as client,
    ):
        yield client


@asynccontextmanager
async def _tracer() -> AsyncIterator[Tracer]:
    """For the span of the request. Without an endpoint there is none: to load the SDK takes 0.2 s, all else 0.4."""
    settings = telemetry_settings(service=SERVICE)
    if settings.disabled or settings.traces.endpoint is None:
        yield NoOpTracer()
        return
    from agentstream.infra.telemetry.opening import open_telemetry

    deliveries: tuple[Delivery, ...] = ()
    try:
        async with open_telemetry(replace(settings, metrics=Destination()), close_s=1.0) as telemetry:
            deliveries = telemetry.deliveries
            yield telemetry.tracer_provider.get_tracer(SCOPE)
    finally:
        # The log, which says so of a worker, is silent in a command for people.
        for delivery in deliveries:
            if line := delivery.last_line():
                Screen().note(line, "yellow")
