"""The Pi sidecar as a process of its own: listens until a signal, lets runs go on for a while, leaves."""

import asyncio
import logging
from dataclasses import replace

from agentstream.consumers.harness.sidecar_server import Serving, SidecarServer
from agentstream.infra.connection import pi_http_token, redactor
from agentstream.infra.harnesses import is_loopback, pi_settings
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.worker_process import stop_on_signals

log = logging.getLogger(__name__)
LISTENING = "sidecar listens"
"""The event that says that requests are answered; with host, port and the pid of Node."""
_PAUSE_S = 0.5
"""Before another is started: one that dies at once must not take the machine."""


async def run_sidecar(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then let runs finish; a second signal ends the process at once.

    A Node process that dies is replaced, on the same port. Raises SettingsError for an address that needs a token and
    has none, ToolMissing, and SidecarUnavailable if it cannot listen.
    """
    token = pi_http_token(settings)
    if token is None and not is_loopback(host):
        raise SettingsError(
            f"AGENTSTREAM_PI_HTTP_TOKEN: is not set, and others can reach {host}: whoever does could run tools here"
        )
    serving = Serving(host=host, port=port, token=token, grace_s=settings.grace_seconds)
    stop = asyncio.Event()
    with stop_on_signals(stop, grace_seconds=settings.grace_seconds):
        while not stop.is_set():
            async with SidecarServer(pi_settings(settings, log.info), serving, redactor=redactor(settings)) as server:
                serving = replace(serving, port=server.port)
                log.info(LISTENING, extra={"host": host, "port": server.port, "pid": server.pid})
                await _until(stop, server)
            if not stop.is_set():
                log.warning("the sidecar ended with %d: starting another", await server.ended())
                await asyncio.sleep(_PAUSE_S)
    log.info("sidecar ended")


async def _until(stop: asyncio.Event, server: SidecarServer) -> None:
    ended = asyncio.create_task(server.ended(), name="sidecar-ended")
    stopping = asyncio.create_task(stop.wait(), name="stopping")
    try:
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await server.stop()
        else:
            await ended
    finally:
        for task in (ended, stopping):
            task.cancel()
        await asyncio.gather(ended, stopping, return_exceptions=True)
