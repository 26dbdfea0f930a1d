"""`agentstream sidecar`."""

import asyncio
from typing import Annotated

import typer


def sidecar(
    context: typer.Context,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but loopback needs AGENTSTREAM_PI_HTTP_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port to listen on; 0: a free one.")] = 8790,
) -> None:
    """Serve Pi over HTTP for workers with the harness pi-http, until SIGTERM or Ctrl-C. Needs no Kafka."""
    from agentstream.infra.connection import redactor
    from agentstream.infra.logs import configure_logs
    from agentstream.infra.sidecar_process import run_sidecar

    settings = context.obj.settings()
    configure_logs(settings.log_level, log_format=settings.log_format, redactor=redactor(settings))
    asyncio.run(run_sidecar(settings, host=host, port=port))
