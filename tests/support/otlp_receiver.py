"""A collector on loopback: speaks OTLP/HTTP, keeps what it took as plain values, and misbehaves when told.

with otlp_receiver() as receiver:
    … OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint …
    await receiver.until(lambda: len(receiver.spans) == 3, "three spans arrive")
"""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, cast

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.otlp_values import Point, SpanSeen, points_of, spans_of
from tests.support.waiting import eventually


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How it answers."""

    status: int = 200
    """The status; what is not 2xx keeps nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Additional headers of the answer."""
    rejected: int = 0
    """Of each export so many, the last ones, are rejected in an answer that says success."""
    hang: bool = False
    """Take the request and answer nothing until `release`."""
    cut: bool = False
    """Take the request and close the connection."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came."""

    path: str
    """Its path."""
    headers: Mapping[str, str]
    """Its headers, names in lower case."""
    spans: tuple[SpanSeen, ...]
    """What it carried."""
    points: tuple[Point, ...]
    """What it carried."""


class OtlpReceiver:
    """The test's end of it. Lists only ever grow; they are read while other threads append to them."""

    def __init__(self) -> None:
        self.manner = Manner()
        self.reads = True
        """Whether what comes is decoded: in benchmarks it would cost more than what is measured."""
        self.requests: list[Asked] = []
        """All that came, also what was not kept."""
        self.spans: list[SpanSeen] = []
        """Those that were taken."""
        self.points: list[Point] = []
        """Those that were taken."""
        self.hanging = 0
        """Requests that wait for an answer now."""
        self._released = threading.Event()
        self._server: _Server | None = None
        self._port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.receiver = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="otlp receiver", daemon=True).start()

    def stop(self) -> None:
        """Be down: listen no more, and end the connections that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.end_connections()

    def close(self) -> None:
        """Be gone."""
        self.release()
        self.stop()

    def release(self) -> None:
        """Answer those that hang, and all later ones."""
        self.manner = Manner()
        self._released.set()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to become true here."""
        await eventually(condition, what)

    def named(self, name: str) -> SpanSeen:
        """The one span of that name; fails if there is none or more than one."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are named {name!r}; there are {sorted(s.name for s in self.spans)}"
        return found[0]

    def take(self, asked: Asked) -> Manner:
        """Called by the server for each request; returns how to answer it."""
        manner = self.manner
        self.requests.append(asked)
        if manner.hang:
            self._released.clear()
            self.hanging += 1
            self._released.wait()
            self.hanging -= 1
            manner = self.manner
        if 200 <= manner.status < 300 and not manner.cut:
            self.spans += asked.spans[: len(asked.spans) - manner.rejected]
            self.points += asked.points[: len(asked.points) - manner.rejected]
        return manner


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver that listens until the end of the block."""
    receiver = OtlpReceiver()
    try:
        yield receiver
    finally:
        receiver.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: OtlpReceiver

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away while it was not answered is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver = cast("_Server", self.server).receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.headers.get("Content-Encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        traces = self.path.endswith("/v1/traces")
        asked = Asked(
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            spans=tuple(spans_of(ExportTraceServiceRequest.FromString(body))) if traces and receiver.reads else (),
            points=tuple(points_of(ExportMetricsServiceRequest.FromString(body)))
            if receiver.reads and not traces
            else (),
        )
        manner = receiver.take(asked)
        if manner.cut:
            self.close_connection = True
            return
        self._answer(manner, traces=traces)

    def _answer(self, manner: Manner, *, traces: bool) -> None:
        content = b""
        if manner.rejected and traces:
            answer = ExportTraceServiceResponse()
            answer.partial_success.rejected_spans = manner.rejected
            content = answer.SerializeToString()
        elif manner.rejected:
            points = ExportMetricsServiceResponse()
            points.partial_success.rejected_data_points = manner.rejected
            content = points.SerializeToString()
        self.send_response(manner.status)
        headers: Iterable[tuple[str, str]] = {"Content-Type": "application/x-protobuf", **manner.headers}.items()
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Tests look at what came, not at lines."""
