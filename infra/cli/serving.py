"""`agentstream worker` and `agentstream dev`."""

from agentstream.infra import event_loop
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.screen import Screen
from agentstream.infra.connection import redactor
from agentstream.infra.harnesses import check_kinds
from agentstream.infra.logs import configure_logs
from agentstream.infra.settings import Settings

_OF_PARTITIONS = (
    "agentstream.consumers.acquisition",
    "agentstream.consumers.partition",
    "agentstream.consumers.harness.sidecar",
)
"""What a developer does not want to read: two lines for each partition at every start."""


def run_worker_command(context: Context, *, stop_at_eof: bool) -> None:
    """Work until a signal, or until stdin ends."""
    from agentstream.infra.worker_process import run_worker

    settings = context.at_dev(context.settings())
    _configure(settings)
    event_loop.run(run_worker(settings, stop_at_eof=stop_at_eof), settings.event_loop)


def run_dev(context: Context, *, tools: str | None, partitions: int | None, port: int | None) -> None:
    """Broker, topics, worker; what to type next."""
    from agentstream.infra.dev import run

    settings = context.settings(tools=tools)
    _configure(settings, quieter=_OF_PARTITIONS)
    serving = run(settings, partitions=partitions, port=port, say=Screen().out)
    event_loop.run(serving, settings.event_loop)


def _configure(settings: Settings, *, quieter: tuple[str, ...] = ()) -> None:
    check_kinds(settings)  # before a broker is started for nothing
    configure_logs(settings.log_level, log_format=settings.log_format, redactor=redactor(settings), quieter=quieter)
