"""The worker as a process: opens everything, serves until a signal, lets started runs finish, leaves."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager

from agentstream.consumers.agent_config import WorkerAgentConfig, findings
from agentstream.consumers.metrics.gauges import Gauges
from agentstream.consumers.worker import Worker
from agentstream.infra.compose import WorkerPlan, open_plan, open_worker
from agentstream.infra.connection import kafka_connection
from agentstream.infra.event_loop import running_loop
from agentstream.infra.garbage import seldom_collected
from agentstream.infra.harnesses import PI
from agentstream.infra.http_port import HttpPort
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import unknown_variables
from agentstream.infra.topic_admin import TopicsMissing, topic_admin
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

log = logging.getLogger(__name__)
INTERRUPTED = 130
STARTED = "worker started"
"""The event that says that the worker is in the group; with its pid, its event loop and its partitions."""


async def run_worker(settings: Settings, *, stop_at_eof: bool = False) -> None:
    """Work until SIGTERM or SIGINT, then let runs finish; a second signal ends the process at once.

    Raises SettingsError, ToolMissing, SidecarUnavailable, TopicsMissing or aiokafka's KafkaError if it cannot start.
    """
    stop = asyncio.Event()
    with stop_on_signals(stop, grace_seconds=settings.grace_seconds):
        if stop_at_eof:
            _stop_at_eof(stop)
        for name in unknown_variables(os.environ):
            log.warning("%s is no setting of agentstream and has no effect", name)
        await check_topics(kafka_connection(settings.kafka), Topics(prefix=settings.topic_prefix))
        async with open_plan(settings, progress=log.info) as plan:
            say_findings(plan)
            with seldom_collected():
                await serve(plan, stop, grace_seconds=settings.grace_seconds, http=http_address(settings))


def http_address(settings: Settings) -> tuple[str, int] | None:
    """Host and port to answer probes on; None for none."""
    return (settings.http_host, settings.http_port) if settings.http_port else None


async def serve(
    plan: WorkerPlan,
    stop: asyncio.Event,
    *,
    grace_seconds: float,
    started: Callable[[Worker], None] | None = None,
    http: tuple[str, int] | None = None,
) -> None:
    """Serve until `stop` is set; `started` is called once the worker has been given its partitions.

    `http`: host and port to answer probes on.
    """
    async with AsyncExitStack() as stack:
        port = None if http is None else stack.enter_context(closing(HttpPort(*http)))
        worker = await stack.enter_async_context(open_worker(plan))
        await stack.enter_async_context(Gauges(worker, plan.harnesses).watching())
        if port is not None:
            await stack.enter_async_context(port.watching(worker, plan))
            log.info("/livez, /readyz, /status and /metrics are answered on port %d", port.number)
        serving = asyncio.create_task(worker.serve(stop, grace_s=grace_seconds), name="worker")
        joining = asyncio.create_task(worker.assigned_once.wait(), name="joining")
        stopping = asyncio.create_task(stop.wait(), name="stopping")
        try:
            await asyncio.wait({serving, joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                partitions = sorted(partition.number for partition in worker.partitions)
                log.info(STARTED, extra={"pid": os.getpid(), "event_loop": running_loop(), "partitions": partitions})
                if started is not None:
                    started(worker)
            elif stopping.done():
                # Nothing was taken yet, and joining can wait for a broker for ever.
                serving.cancel()
            await serving
        except asyncio.CancelledError:
            if not stopping.done():
                raise
        finally:
            for task in (joining, stopping, serving):
                task.cancel()
            await asyncio.gather(joining, stopping, serving, return_exceptions=True)
    log.info("worker ended")


async def check_topics(connection: KafkaConnection, topics: Topics) -> None:
    """Raise TopicsMissing if one that a worker needs is missing: aiokafka would wait for it in silence.

    Evaluations are none of its business. When they were asked for, a worker of the next version did not start beside
    those of the last one, and none did that had only the rights that it needs.
    """
    async with topic_admin(connection) as admin:
        there = await admin.names()
    missing = [name for name in (*topics.outputs, topics.control, topics.invoke_requests) if name not in there]
    if missing:
        raise TopicsMissing(
            f"topics are missing, or this user may not see them: {', '.join(missing)}."
            " Make them with `agentstream topics apply`; the rights that are needed stand in docs/operations.md."
        )


def say_findings(plan: WorkerPlan) -> None:
    """Log what in AGENTS.md and agent.json cannot be used."""
    for found in findings(plan.agent_config):
        where = found.file if found.field is None else f"{found.file}, {found.field}"
        log.warning("%s: %s; %s", where, found.problem, found.took_effect)
    if PI.intersection(plan.harnesses) and (lacking := _lacking(plan.agent_config)):
        log.warning(lacking)


def _lacking(config: WorkerAgentConfig) -> str | None:
    """What requests to Pi will fail for, unless they bring it themselves."""
    named = config.files.parameters.model or config.default_model
    if not config.credentials:
        return "no credentials: runs with Pi will fail; set OPENAI_API_KEY, ANTHROPIC_API_KEY or [credentials.NAME]"
    return None if named else "no default model: requests that name none will fail; set AGENTSTREAM_MODEL=provider/id"


def _stop_at_eof(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4_096):
            loop.remove_reader(0)
            log.info("stdin has ended: stopping")
            stop.set()

    loop.add_reader(0, readable)


@contextmanager
def stop_on_signals(stop: asyncio.Event, *, grace_seconds: float) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`, the next one ends the process at once: a watcher cleans up behind it."""
    loop = asyncio.get_running_loop()

    def stop_now(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("stopping at once; what was running is left to the other workers")
            logging.shutdown()
            os._exit(INTERRUPTED)
        log.info("%s: started runs may go on for %g s; once more ends at once", number.name, grace_seconds)
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop_now, number)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
