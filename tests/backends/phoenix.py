"""Arize Phoenix on loopback, and what its API says of the spans that it took."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from agentstream.infra.broker.port import free_ports
from tests.backends.install import PHOENIX, is_ready
from tests.support.waiting import patience

START_SECONDS = 120.0
_TOTALS = """query ($trace: String!) { getTraceByOtelId(traceId: $trace) {
  rootSpan { cumulativeTokenCountPrompt cumulativeTokenCountCompletion }
} }"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A span as Phoenix keeps it."""

    name: str
    span_id: str
    parent_id: str | None
    kind: str
    """Phoenix's own: AGENT, LLM, TOOL, CHAIN or UNKNOWN."""
    status: str
    """OK, ERROR or UNSET."""
    status_detail: str
    attributes: Mapping[str, Any]

    def without(self, prefix: str) -> "Shown":
        """With plain names of topics."""
        return replace(self, name=self.name.replace(prefix, ""))


@dataclass(frozen=True, kw_only=True)
class Phoenix:
    """A server that listens. Made by `phoenix`."""

    endpoint: str
    """For OTEL_EXPORTER_OTLP_ENDPOINT."""

    async def spans(self, trace_id: str, *, until: str) -> list[Shown]:
        """The spans of a trace, once one of this name is there: Phoenix answers an export before it has stored it."""
        async with self._client() as client, patience():
            while True:
                query: dict[str, str | int] = {"trace_id": trace_id, "limit": 1_000}
                answer = await client.get("/v1/projects/default/spans", params=query)
                # The project is made with its first span.
                found = _in_order(answer.json()["data"]) if answer.is_success else []
                if any(span.name == until for span in found):
                    return found
                await asyncio.sleep(0.1)

    async def totals(self, trace_id: str) -> tuple[int, int]:
        """The tokens, read and written, that Phoenix counts for a trace."""
        async with self._client() as client:
            answer = await client.post("/graphql", json={"query": _TOTALS, "variables": {"trace": trace_id}})
        body = answer.raise_for_status().json()
        assert "errors" not in body, body
        root = body["data"]["getTraceByOtelId"]["rootSpan"]
        return int(root["cumulativeTokenCountPrompt"]), int(root["cumulativeTokenCountCompletion"])

    async def session(self, session_id: str) -> set[str]:
        """The ids of the traces that Phoenix shows as one session."""
        async with self._client() as client:
            answer = await client.get(f"/v1/sessions/{session_id}")
        return {trace["trace_id"] for trace in answer.raise_for_status().json()["data"]["traces"]}

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.endpoint, timeout=30)


@contextmanager
def phoenix(home: Path) -> Iterator[Phoenix]:
    """Start a server that keeps everything below `home`; it is gone at the end. It asks nobody else for anything."""
    assert is_ready(), "Phoenix is not installed: run `make backends`"
    port, grpc_port = free_ports(2)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PHOENIX_"))}
    variables = {
        "PHOENIX_WORKING_DIR": str(home),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    }
    told = home / "phoenix.log"
    with told.open("wb") as log:
        process = subprocess.Popen([PHOENIX, "serve"], cwd=home, env=inherited | variables, stdout=log, stderr=log)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(process, f"{endpoint}/healthz", told)
        yield Phoenix(endpoint=endpoint)
    finally:
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], page: str, told: Path) -> None:
    """Its database is made first: some ten seconds."""
    last = time.monotonic() + START_SECONDS
    while time.monotonic() < last:
        assert process.poll() is None, told.read_text()
        try:
            if httpx.get(page).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"Phoenix does not answer:\n{told.read_text()}")


def _in_order(spans: Sequence[Mapping[str, Any]]) -> list[Shown]:
    """Parents before what began with them."""
    order = ("send", "process", "invoke_agent", "turn", "chat", "execute_tool")

    def place(span: Mapping[str, Any]) -> tuple[str, int]:
        return span["start_time"], next(n for n, word in enumerate(order) if span["name"].startswith(word))

    return [_shown(span) for span in sorted(spans, key=place)]


def _shown(span: Mapping[str, Any]) -> Shown:
    return Shown(
        name=span["name"],
        span_id=span["context"]["span_id"],
        parent_id=span["parent_id"],
        kind=span["span_kind"],
        status=span["status_code"],
        status_detail=span["status_message"],
        attributes=span["attributes"],
    )
