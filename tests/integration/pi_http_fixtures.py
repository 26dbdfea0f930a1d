"""What the tests of Pi over HTTP share: a server with its harness, and plain requests to it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import JsonValue

from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.sidecar_server import Serving, SidecarServer
from tests.integration.pi_fixtures import settings

TOKEN = "token-0123456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Served:
    """A sidecar that listens, and how to reach it."""

    server: SidecarServer
    token: str | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def place(self) -> HttpPlace:
        return HttpPlace(url=self.url, token=self.token)

    def client(self, *, token: str | None = None) -> httpx.AsyncClient:
        """Plain requests, with the server's token unless another is given; an empty one is none."""
        shown = self.token if token is None else token
        headers = {"authorization": f"Bearer {shown}"} if shown else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False)


@asynccontextmanager
async def served(temporary: Path, *, token: str | None = TOKEN, grace_s: float = 5.0) -> AsyncIterator[Served]:
    serving = Serving(host="127.0.0.1", port=0, token=token, grace_s=grace_s)
    async with SidecarServer(settings(temporary), serving) as server:
        yield Served(server=server, token=token)


@asynccontextmanager
async def http_harness(one: Served, *, tools: tuple[PythonTool, ...] = ()) -> AsyncIterator[PiHttpHarness]:
    async with PiHttpHarness(one.place, tools=tools) as harness:
        yield harness


def run_body(model_url: str, prompt: str, **more: JsonValue) -> dict[str, JsonValue]:
    """The smallest `run` line that a client may send, without what is the server's to say."""
    return {
        "type": "run",
        "run": "run-of-a-client",
        "model": {"provider": "offline", "id": "demo"},
        "endpoint": {"api_key": "sk-any", "base_url": model_url, "api": "openai-completions"},
        "messages": [{"role": "user", "parts": [{"type": "text", "content": prompt}]}],
        "tools": ["bash"],
        "max_turns": 5,
        **more,
    }


async def lines_of(response: httpx.Response) -> AsyncIterator[dict[str, JsonValue]]:
    """What comes, without the signs of life."""
    async for line in response.aiter_lines():
        if line:
            yield json.loads(line)
