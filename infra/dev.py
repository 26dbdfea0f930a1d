"""`agentstream dev`: a broker, the topics and a worker in one process, until Ctrl-C."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from agentstream.infra.broker import LocalBroker, find_broker
from agentstream.infra.broker.external import ExternalBroker
from agentstream.infra.broker.port import BrokerError, BrokerOptions, PortTaken, is_free
from agentstream.infra.compose import WorkerPlan, open_plan
from agentstream.infra.connection import kafka_connection
from agentstream.infra.dev_state import DevState, published, running_devs, state_directory
from agentstream.infra.models import Chosen, usable_model
from agentstream.infra.settings import Settings
from agentstream.infra.topics import apply_topics
from agentstream.infra.worker_process import http_address, say_findings, serve, stop_on_signals
from agentstream.schemas.topics import Topics

Say = Callable[[str], None]
PORT = 9092
"""Kafka's own, so that examples for any client work as they stand; another one where somebody listens on it."""


async def run(settings: Settings, *, partitions: int | None, port: int | None, say: Say) -> None:
    """Start all of it and serve until a signal. Raises what the parts raise when they cannot start."""
    stop = asyncio.Event()
    with stop_on_signals(stop, grace_seconds=settings.grace_seconds):
        async with running_broker(settings, port, say) as broker, usable_model(settings) as chosen:
            bootstrap = broker.bootstrap_servers
            topics = Topics(prefix=settings.topic_prefix)
            connection = kafka_connection(settings.kafka, bootstrap_servers=bootstrap)
            await apply_topics(connection, topics, partitions=partitions, max_request_bytes=settings.max_request_bytes)
            kept = _with_spans(chosen.settings)
            async with open_plan(kept, bootstrap_servers=bootstrap, progress=say) as plan:
                say_findings(plan)
                ready = _ready(broker, chosen, plan, others=running_devs())
                with published(bootstrap, kept):
                    serving = serve(
                        plan,
                        stop,
                        grace_seconds=settings.grace_seconds,
                        started=lambda _worker: say(ready),
                        http=http_address(kept),
                    )
                    await _while_kafka_runs(broker, serving)


async def _while_kafka_runs(broker: LocalBroker, serving: Coroutine[None, None, None]) -> None:
    """Serve; raise BrokerError once our own Kafka has ended. Without it the worker waited, and logged, for ever."""
    worker = asyncio.create_task(serving, name="serving")
    kafka = asyncio.create_task(broker.ended(), name="kafka")
    try:
        await asyncio.wait({worker, kafka}, return_when=asyncio.FIRST_COMPLETED)
        if kafka.done() and not worker.done():
            raise BrokerError(f"Kafka is gone, so dev ends: {kafka.result()}")
        await worker
    finally:
        for task in (worker, kafka):
            task.cancel()
        await asyncio.gather(worker, kafka, return_exceptions=True)


def _with_spans(settings: Settings) -> Settings:
    """Spans are kept for `agentstream trace`, where nothing else is said."""
    directory = settings.trace_dir or state_directory() / "traces"
    return settings.model_copy(update={"trace_dir": directory.resolve()})


@asynccontextmanager
async def running_broker(settings: Settings, port: int | None, say: Say) -> AsyncIterator[LocalBroker]:
    """A broker that serves until the block ends."""
    if settings.kafka.bootstrap_servers:
        broker: LocalBroker = ExternalBroker(settings.kafka.bootstrap_servers)
    else:
        broker = find_broker(BrokerOptions(port=dev_port(port)), progress=say)
    say(_starting(broker))
    try:
        await broker.start()
    except PortTaken as taken:
        # A port that was free when we looked: of two `dev` started in the same second the later one ended here.
        if taken.port == port:
            raise BrokerError(_taken(port)) from taken
        say(f"Port {taken.port} was taken meanwhile; starting on another …")
        broker = find_broker(BrokerOptions(port=port), progress=say)
        await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def dev_port(wanted: int | None) -> int | None:
    """The port for the broker; None for any. Raises BrokerError if the one that was asked for is taken."""
    if wanted is not None and not is_free(wanted):
        raise BrokerError(_taken(wanted))
    return wanted if wanted is not None or not is_free(PORT) else PORT


def _taken(port: int) -> str:
    return f"port {port} is taken; name another with --port, or leave it out"


def _starting(broker: LocalBroker) -> str:
    match broker.kind:
        case "external":
            return f"Using the broker at {broker.bootstrap_servers} …"
        case "docker":
            return "Starting Apache Kafka in Docker (the first time it fetches the image) …"
        case _:
            return "Starting Apache Kafka …"


def _ready(broker: LocalBroker, chosen: Chosen, plan: WorkerPlan, *, others: Sequence[DevState]) -> str:
    allowed = ", ".join(sorted(plan.agent_config.tools))
    tools = (
        f"Tools that requests may use: {allowed}."
        if allowed
        else "Tools: none. `agentstream dev --tools bash,read` allows some."
    )
    example = "--set tools=bash 'Run `uname -sr`.'" if "bash" in plan.agent_config.tools else "'Count to 20.'"
    return "\n".join(
        (
            "",
            f"Ready. Kafka: {broker.bootstrap_servers}. {chosen.note}",
            tools,
            *beside(broker.bootstrap_servers, others),
            "",
            "In another terminal:",
            "  agentstream invoke 'Hello, who are you?'",
            f"  agentstream invoke {example}",
            "  agentstream inspect",
            "",
            "Ctrl-C stops it.",
        )
    )


def beside(bootstrap_servers: str, others: Iterable[DevState]) -> Iterator[str]:
    """What to know of others that run: commands elsewhere find the one that was started last."""
    for other in others:
        if other.bootstrap_servers != bootstrap_servers:
            yield (
                f"Another `agentstream dev` runs (pid {other.pid}): commands in other terminals find this one from now "
                f"on, KAFKA_BOOTSTRAP_SERVERS={other.bootstrap_servers} names the other."
            )
