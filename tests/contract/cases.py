"""What a harness must bring to be tested against the port's contract: scenes that it can play.

To plug in another harness, write a `Case` and add it to `CASES`; every sentence of the suite then holds for it, too.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import JsonValue

from agentstream.consumers.harness.port import Credentials, Harness, HarnessRequest, RunLimits
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import HarnessChoice
from agentstream.schemas.trace import TraceContext

TEXT = "one two three"
LARGE_BYTES = 65_536


class Scene(StrEnum):
    """What the agent is to do."""

    ANSWER = "answer TEXT, and report usage"
    TOOLS = "call two tools, one after the other, then answer TEXT"
    TOOL_FAILS = "call a tool that fails, then answer TEXT"
    LARGE = "answer LARGE_BYTES bytes"
    PROVIDER_DOWN = "fail in a way that is worth another try"
    REFUSED = "fail for good: the provider refuses the credentials"
    LOOP = "call a tool in every turn, beyond the limit of 2 turns"
    HANG_BEFORE_ANSWER = "wait for ever before the first word"
    HANG_MID_TEXT = "say something, then wait for ever"
    HANG_IN_TOOL = "call a tool that takes for ever"


ENDING = tuple(scene for scene in Scene if not scene.name.startswith("HANG"))
HANGING = tuple(scene for scene in Scene if scene.name.startswith("HANG"))


class Case(Protocol):
    """One harness under test."""

    @property
    def kind(self) -> str:
        """The harness's kind."""
        ...

    def open(self, temporary: Path) -> AbstractAsyncContextManager["Stage"]:
        """Open the harness and all it needs; files go into this directory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An open harness, and how to ask it for a scene."""

    harness: Harness
    request: Callable[[Scene], HarnessRequest]
    bad_options: tuple[Mapping[str, JsonValue], ...]


def request_for(
    kind: str,
    prompt: str,
    *,
    options: dict[str, JsonValue] | None = None,
    model: str | None = None,
    tools: tuple[str, ...] = (),
    credentials: Credentials | None = None,
    max_turns: int = 10,
) -> HarnessRequest:
    """A request with generous limits, which the watchdog keeps and not the harness, and a mark of its own."""
    return HarnessRequest(
        run_id="run-1",
        session_id="session-1",
        attempt=1,
        attempt_id=secrets.token_hex(16),
        messages=(Message.of_text("user", prompt),),
        model=model,
        agents_md="Be brief.",
        tools=tools,
        choice=HarnessChoice(kind=kind, options=options or {}),
        thinking="off",
        limits=RunLimits(
            total_ms=60_000,
            first_event_ms=60_000,
            idle_ms=60_000,
            tool_ms=60_000,
            max_turns=max_turns,
            max_output_bytes=1 << 24,
            max_attempts=1,
        ),
        credentials=credentials,
        trace=TraceContext.fresh(),
    )


class ScriptedCase:
    """The `scripted` harness."""

    kind = "scripted"

    @asynccontextmanager
    async def open(self, temporary: Path) -> AsyncIterator[Stage]:
        bad: tuple[Mapping[str, JsonValue], ...] = ({"txt": "x"}, {"delay_ms": -1}, {"error": "nonsense"}, {"tools": 5})
        async with ScriptedHarness() as harness:
            yield Stage(harness=harness, request=self._request, bad_options=bad)

    def _request(self, scene: Scene) -> HarnessRequest:
        usage: JsonValue = {"provider": "p", "model": "m", "input_tokens": 5, "output_tokens": 3}
        tool: JsonValue = {"name": "bash", "arguments": {"command": "ls"}, "result": "README", "duration_ms": 1}
        failing: JsonValue = {"name": "bash", "result": "exited with code 3", "is_error": True}
        options: dict[Scene, dict[str, JsonValue]] = {
            Scene.ANSWER: {"usage": usage},
            Scene.TOOLS: {"tools": [tool, tool]},
            Scene.TOOL_FAILS: {"tools": [failing]},
            Scene.LARGE: {"output_bytes": LARGE_BYTES},
            Scene.PROVIDER_DOWN: {"fail_attempts": 1},
            Scene.REFUSED: {"error": "provider_auth"},
            Scene.LOOP: {"tools": [tool] * 9},
            Scene.HANG_BEFORE_ANSWER: {"hang": "before_first"},
            Scene.HANG_MID_TEXT: {"hang": "mid_text"},
            Scene.HANG_IN_TOOL: {"tools": [tool], "hang": "in_tool"},
        }
        turns = 2 if scene is Scene.LOOP else 10
        return request_for(self.kind, "hi", options={"text": TEXT, **options[scene]}, max_turns=turns)


def processes_marked(attempt_id: str) -> list[str]:
    """Living processes that carry this attempt's id in their environment, whatever group or session they are in."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(attempt_id in v for v in process.environ().values()):
                found.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    return found
