"""The worker's HTTP port: /livez, /readyz, /status and /metrics for probes and people.

It answers from a thread of its own, so that it can still say so when the event loop is stuck.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any, cast

from pydantic import JsonValue

from agentstream.consumers.coordinator import GroupCoordinator
from agentstream.consumers.health import Health
from agentstream.consumers.worker import Worker
from agentstream.infra.compose import WorkerPlan
from agentstream.infra.settings_file import SettingsError

AT_ONCE = 16
"""Connections; more are closed unanswered. Whoever is slow holds one of them for five seconds."""
STATUS_SECONDS = 5.0
_NOT_FOUND = "only /livez, /readyz, /status and /metrics are here"
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class HttpPort:
    """Listens from the start, so that a port that is taken is known before a worker is opened; answers when asked to.

    Raises SettingsError if it cannot listen. To be closed, also if it never answered.
    """

    def __init__(self, host: str, port: int) -> None:
        """`port` 0 is a free one."""
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise SettingsError(f"AGENTSTREAM_HTTP_PORT: cannot listen on {host}:{port} ({error.strerror})") from None

    @property
    def number(self) -> int:
        """The port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.server_close()

    @asynccontextmanager
    async def watching(self, worker: Worker, plan: WorkerPlan) -> AsyncIterator[None]:
        """Watch a worker and answer for it."""
        async with GroupCoordinator(plan.connection, plan.group_id) as coordinator:
            health = Health(worker, plan.harnesses, lambda: coordinator.partition_count(plan.topics.invoke_requests))
            looking = asyncio.create_task(health.watch(), name="health")
            try:
                async with self.answering(health, plan.telemetry_state, plan.metrics_text):
                    yield
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    @asynccontextmanager
    async def answering(
        self,
        health: Health,
        telemetry: Callable[[], dict[str, JsonValue]] = dict,
        metrics_text: Callable[[], bytes] | None = None,
    ) -> AsyncIterator[None]:
        """Answer with what `health` and `telemetry` say, and with the measurements if there are any."""
        self._server.asked = (health, asyncio.get_running_loop())
        self._server.telemetry, self._server.metrics_text = telemetry, metrics_text
        threading.Thread(target=self._server.serve_forever, name="http port", daemon=True).start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._server.shutdown)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    asked: tuple[Health, asyncio.AbstractEventLoop]
    telemetry: Callable[[], dict[str, JsonValue]]
    metrics_text: Callable[[], bytes] | None

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A client that went away is no news; the log is for the worker's."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5

    @property
    def _health(self) -> Health:
        return cast("_Server", self.server).asked[0]

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/livez":
                self._verdict(self._health.stuck)
            case "/readyz":
                self._verdict(self._health.unready)
            case "/status":
                self._status()
            case "/metrics":
                self._metrics()
            case _:
                self._answer(404, {"error": _NOT_FOUND})

    do_HEAD = do_GET  # noqa: N815 - the base class's name for it

    def _verdict(self, problem: str | None) -> None:
        self._answer(200 if problem is None else 503, {"ok": problem is None, "reason": problem})

    def _status(self) -> None:
        asked = asyncio.run_coroutine_threadsafe(self._read_status(), cast("_Server", self.server).asked[1])
        try:
            self._answer(200, asked.result(STATUS_SECONDS))
        except (TimeoutError, FutureCancelled):
            asked.cancel()
            self._answer(503, {"error": self._health.stuck or "the event loop does not answer"})

    async def _read_status(self) -> dict[str, JsonValue]:
        return {**self._health.status(), "telemetry": cast("_Server", self.server).telemetry()}

    def _metrics(self) -> None:
        text = cast("_Server", self.server).metrics_text
        if text is None:
            self._answer(404, {"error": "OTEL_METRICS_EXPORTER or OTEL_SDK_DISABLED keeps them from here"})
        else:
            self._send(200, text(), _PROMETHEUS_TEXT)

    def _answer(self, code: int, body: dict[str, JsonValue]) -> None:
        self._send(code, json.dumps(body).encode() + b"\n", "application/json")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if code == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Called by the base class for what it cannot read or has no method for: 501 is its word for the latter."""
        if code == 501:
            self._answer(405, {"error": "only GET and HEAD"})
        else:
            self._answer(code, {"error": "bad request"})

    def version_string(self) -> str:
        return "agentstream"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Probes come every few seconds: nothing of them belongs in the log."""
