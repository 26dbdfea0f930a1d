"""What the collector answered.

The official exporters tell success from failure only, and not always rightly: a redirect counts as success although
nothing was stored, and spans that the collector rejected are not looked for.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

MAX_ANSWER_BYTES = 65_536
_OF_THE_REQUEST: Final = frozenset({"content-type", "content-encoding", "content-length", "user-agent"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The last one."""

    status: int | None = None
    """HTTP status; None: there was no answer."""
    error: str | None = None
    """Kind of error where there was none."""
    rejected: int = 0
    """Spans or data points that were not taken although the status says success."""

    @property
    def refusal(self) -> str | None:
        """Why nothing arrived, in a few words without secrets; None if it arrived."""
        if self.status is None:
            return self.error or "no answer"
        return None if 200 <= self.status < 300 else f"HTTP {self.status}"


class WatchedSession(requests.Session):
    """A session that keeps the last answer. For one exporter, which sends one request at a time."""

    def __init__(self, signal: Literal["traces", "metrics"], *, only: Mapping[str, str] | None = None) -> None:
        """`only`: the headers for a place of its own. OTEL_EXPORTER_OTLP_HEADERS may hold the key of another one, and
        the exporter adds them wherever it sends to."""
        super().__init__()
        self._signal = signal
        self._only = only
        self.answer = Answer()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """As the base class, but reads only the beginning of the answer, and no longer than the time-out."""
        self.answer = Answer()
        if self._only is not None:
            for name in [name for name in request.headers if name.lower() not in _OF_THE_REQUEST]:
                del request.headers[name]
            request.headers.update(self._only)
        options["stream"] = True
        timeout = options.get("timeout")
        deadline = time.monotonic() + (timeout if isinstance(timeout, int | float) else 10.0)
        try:
            response = super().send(request, **options)
            with response:
                body = _beginning(response, deadline)
        except (requests.RequestException, OSError) as error:
            self.answer = Answer(error=type(error).__name__)
            raise
        self.answer = Answer(status=response.status_code, rejected=self._rejected(response, body))
        return response

    def _rejected(self, response: requests.Response, body: bytes) -> int:
        if not body or "json" in response.headers.get("Content-Type", ""):
            return 0
        try:
            if self._signal == "traces":
                return max(0, ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
            return max(0, ExportMetricsServiceResponse.FromString(body).partial_success.rejected_data_points)
        except DecodeError:
            return 0  # some collectors answer with a page of text


def _beginning(response: requests.Response, deadline: float) -> bytes:
    """Read up to 64 KiB. An answer that trickles would hold the exporter's thread for ever."""
    body = b""
    for piece in response.iter_content(4_096):
        body += piece
        if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
            break
    return body
