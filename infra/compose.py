"""The composition root: builds a worker from plain settings, opens what it needs, and closes it again."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from pydantic import JsonValue

from agentstream.consumers.acquisition import Acquirer
from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.agent_files import read_agent_files
from agentstream.consumers.control import Control
from agentstream.consumers.coordinator import GroupCoordinator
from agentstream.consumers.engine import Engine
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.index import WINDOW, LoadedIndex, load_index
from agentstream.consumers.intake import MAX_HELD_BYTES, Intake
from agentstream.consumers.kafka import Consumer, group_consumer, tail_consumer
from agentstream.consumers.membership import Membership
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.consumers.quarantine import Quarantine
from agentstream.consumers.readers.tail import Tail
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.source import Assignments, Source
from agentstream.consumers.worker import Worker
from agentstream.infra.connection import (
    kafka_connection,
    named_credentials,
    redactor,
    retry_ceilings,
    run_limits,
    trace_targets,
)
from agentstream.infra.harnesses import open_harnesses
from agentstream.infra.redacting import RedactingEncoder
from agentstream.infra.run_log import LoggedRuns
from agentstream.infra.settings import Settings
from agentstream.infra.telemetry.environment import telemetry_settings
from agentstream.infra.telemetry.opening import open_telemetry
from agentstream.infra.toolchain import Progress, quiet
from agentstream.infra.tracing import deltas_reader, span_maker, wants_content
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.deltas import DeltaPublisher
from agentstream.producers.kafka import TRANSACTION_TIMEOUT_MS, idempotent_producer
from agentstream.producers.results import ResultWriter
from agentstream.schemas.codec import Bounds
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES, Topics

DEFAULT_MAX_IN_FLIGHT = 64
WAITING_PER_SLOT = 16


def _nothing() -> None:
    """What there is to flush where nothing is exported."""


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """Plain values that make a worker."""

    connection: KafkaConnection
    """The cluster."""
    topics: Topics
    """The topics."""
    group_id: str
    """The workers' group."""
    harnesses: Mapping[str, Harness]
    """Open harnesses by kind."""
    agent_config: WorkerAgentConfig
    """What the worker allows, and its defaults."""
    redactor: Redactor
    """Knows the secrets that must not leave."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    """Runs under way at once."""
    max_held_bytes: int = MAX_HELD_BYTES
    """Bytes of requests held at once."""
    max_request_bytes: int = MAX_REQUEST_BYTES
    """Largest request."""
    session_timeout_ms: int = 15_000
    """The group forgets a silent worker after this long."""
    heartbeat_interval_ms: int = 3_000
    """How often the worker tells the group that it lives."""
    transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS
    """The broker ends a transaction after this long."""
    index_window: int = WINDOW
    """Finished runs remembered per partition."""
    tracer_provider: TracerProvider = field(default_factory=NoOpTracerProvider)
    """Where spans go."""
    meter_provider: MeterProvider = field(default_factory=NoOpMeterProvider)
    """Where measurements go."""
    flush_spans: Callable[[], None] = _nothing
    """Asks that ended spans be exported soon; never waits."""
    capture_content: bool = False
    """Whether messages, tool arguments and results stand in spans."""
    trace_names: frozenset[str] = frozenset()
    """What spans carry besides OpenTelemetry's names: `prompt_tokens`, `openinference`."""
    metrics_text: Callable[[], bytes] | None = None
    """The measurements in Prometheus' text format, from any thread; None: they are not kept for that."""
    telemetry_state: Callable[[], dict[str, JsonValue]] = dict
    """What reached each place that spans and measurements go to, and what was lost."""

    @property
    def max_record_bytes(self) -> int:
        """Largest record on an output topic."""
        return self.max_request_bytes + OUTPUT_MARGIN_BYTES


def agent_config(settings: Settings, harnesses: Mapping[str, Harness]) -> WorkerAgentConfig:
    """What the worker allows and falls back to. Raises SettingsError for credentials without a key."""
    return WorkerAgentConfig(
        harnesses=harnesses,
        default_harness=settings.harnesses[0],
        default_model=settings.model,
        tools=frozenset(settings.tools),
        limits=run_limits(settings),
        retry=retry_ceilings(settings),
        credentials=named_credentials(settings),
        trace_targets=frozenset(settings.trace_targets),
        files=read_agent_files(settings.agent_dir),
    )


@asynccontextmanager
async def open_plan(
    settings: Settings, *, bootstrap_servers: str | None = None, progress: Progress = quiet
) -> AsyncIterator[WorkerPlan]:
    """Settings as a plan, its harnesses open until the end. Raises SettingsError, ToolMissing, SidecarUnavailable."""
    connection = kafka_connection(settings.kafka, bootstrap_servers=bootstrap_servers)
    secrets = redactor(settings)
    named_credentials(settings)  # what is wrong with them should be said before Node is started
    telemetry = open_telemetry(
        telemetry_settings(),
        targets=trace_targets(settings),
        trace_dir=settings.trace_dir,
        metrics_page=settings.http_port != 0,
    )
    async with telemetry as opened, open_harnesses(settings, secrets, progress) as harnesses:
        yield WorkerPlan(
            tracer_provider=opened.tracer_provider,
            meter_provider=opened.meter_provider,
            flush_spans=opened.flush,
            capture_content=wants_content(),
            trace_names=frozenset(settings.trace_names),
            metrics_text=opened.metrics_text,
            telemetry_state=opened.state,
            connection=connection,
            topics=Topics(prefix=settings.topic_prefix),
            group_id=settings.group_id,
            harnesses=harnesses,
            agent_config=agent_config(settings, harnesses),
            redactor=secrets,
            max_in_flight=settings.max_in_flight,
            max_request_bytes=settings.max_request_bytes,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
        )


@asynccontextmanager
async def open_worker(plan: WorkerPlan) -> AsyncIterator[Worker]:
    """A worker ready to `serve`. Raises aiokafka's KafkaError if the cluster cannot be reached."""
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(GroupCoordinator(plan.connection, plan.group_id))
        meter = plan.meter_provider.get_meter("agentstream")
        metrics = Metrics(meter, input_topic=plan.topics.invoke_requests, group_id=plan.group_id)
        deltas = await stack.enter_async_context(
            DeltaPublisher(
                lambda: _delta_producer(plan), metrics.delta_acknowledged, max_record_bytes=plan.max_record_bytes
            )
        )
        tail = Tail(lambda: tail_consumer(plan.connection, read_committed=True), plan.topics.control)
        control = await stack.enter_async_context(Control(tail))
        sources: list[Source] = []
        engine = Engine(
            topics=plan.topics,
            runs=LoggedRuns(plan.harnesses, redactor=plan.redactor, rng=random.Random(), metrics=metrics),
            agent_config=plan.agent_config,
            deltas=deltas,
            encoder=RedactingEncoder(
                plan.topics, plan.group_id, max_record_bytes=plan.max_record_bytes, redactor=plan.redactor
            ),
            membership=Membership(
                coordinator, lambda: sources[0].membership, session_timeout_s=plan.session_timeout_ms / 1000
            ),
            control=control,
            quarantine=Quarantine(),
            slots=asyncio.Semaphore(plan.max_in_flight),
            intake=Intake(max_held=plan.max_in_flight * WAITING_PER_SLOT, max_bytes=plan.max_held_bytes),
            clock=time.monotonic,
            metrics=metrics,
            tracing=span_maker(
                plan.tracer_provider,
                group_id=plan.group_id,
                redactor=plan.redactor,
                flush=plan.flush_spans,
                content=plan.capture_content,
                names=plan.trace_names,
                agent_name=plan.agent_config.files.name,
            ),
            read_deltas=deltas_reader(plan.connection, plan.topics.stream_deltas),
            bounds=Bounds(max_bytes=plan.max_request_bytes),
            index_window=plan.index_window,
        )

        def new_source(assignments: Assignments) -> Source:
            sources.append(Source(_consumer(plan), plan.topics.invoke_requests, assignments))
            return sources[0]

        yield Worker(engine, new_source, lambda source: _acquirer(plan, coordinator, source))


def _consumer(plan: WorkerPlan) -> Consumer:
    return group_consumer(
        plan.connection,
        plan.group_id,
        session_timeout_ms=plan.session_timeout_ms,
        heartbeat_interval_ms=plan.heartbeat_interval_ms,
    )


def _delta_producer(plan: WorkerPlan) -> object:
    return idempotent_producer(plan.connection, max_request_size=plan.max_record_bytes)


def _acquirer(plan: WorkerPlan, coordinator: GroupCoordinator, source: Source) -> Acquirer:
    def new_writer(partition: int) -> ResultWriter:
        return ResultWriter(
            plan.connection,
            plan.group_id,
            transactional_id=f"{plan.group_id}.{plan.topics.invoke_requests}.{partition}",
            max_record_bytes=plan.max_record_bytes,
            transaction_timeout_ms=plan.transaction_timeout_ms,
        )

    async def read_index(partition: int, whole: bool) -> LoadedIndex:
        return await load_index(
            plan.connection,
            plan.topics.finished_runs,
            partition,
            window=plan.index_window,
            whole=whole,
            requests=plan.topics.invoke_requests,
        )

    return Acquirer(
        topics=plan.topics,
        coordinator=coordinator,
        new_writer=new_writer,
        read_index=read_index,
        bounds=source.bounds,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
