"""What the tests of the Pi harness share: a request, a harness over the real sidecar, and processes to look for."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agentstream.consumers.harness.launcher import Launcher
from agentstream.consumers.harness.pi import PiHarness, PiSettings
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.port import (
    Credentials,
    Failed,
    Finished,
    Harness,
    HarnessEvent,
    HarnessRequest,
    RunLimits,
    Terminal,
    Waiting,
)
from agentstream.consumers.harness.sidecar import Patience
from agentstream.consumers.harness.sweep import MARK
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.toolchain import ensure_pi_sidecar, find_node
from agentstream.schemas.events import AnyEvent, MessageEnded, PartDelta
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import HarnessChoice, Thinking
from agentstream.schemas.trace import TraceContext

ALL_TOOLS = ("bash", "read", "write", "edit", "grep", "find", "ls")
KEY = "sk-canary-0123456789abcdef"


@dataclass(kw_only=True)
class Outcome:
    """Everything that a run yielded."""

    events: list[AnyEvent] = field(default_factory=list)
    waited: int = 0
    """How often the harness said that it has no room yet."""
    terminal: Terminal | None = None

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.events if isinstance(event, MessageEnded) and event.message]

    @property
    def text(self) -> str:
        return next((m.text for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def deltas(self) -> str:
        return "".join(e.delta for e in self.events if isinstance(e, PartDelta) and e.part_type == "text")

    @property
    def failed(self) -> Failed:
        assert isinstance(self.terminal, Failed), self.terminal
        return self.terminal

    @property
    def finished(self) -> Finished:
        assert isinstance(self.terminal, Finished), self.terminal
        return self.terminal


def limits(*, max_turns: int = 10) -> RunLimits:
    return RunLimits(
        total_ms=60_000,
        first_event_ms=30_000,
        idle_ms=30_000,
        tool_ms=30_000,
        max_turns=max_turns,
        max_output_bytes=1 << 24,
        max_attempts=1,
    )


def user(text: str) -> Message:
    return Message.of_text("user", text)


def request(
    *messages: Message | str,
    credentials: Credentials | None,
    model: str | None = "offline/demo",
    tools: tuple[str, ...] = (),
    agents_md: str = "",
    max_turns: int = 10,
    thinking: Thinking = "off",
    trace: TraceContext | None = None,
) -> HarnessRequest:
    return HarnessRequest(
        run_id="run-1",
        session_id="session-1",
        attempt=1,
        attempt_id=secrets.token_hex(16),
        messages=tuple(user(m) if isinstance(m, str) else m for m in messages),
        model=model,
        agents_md=agents_md,
        tools=tools,
        choice=HarnessChoice(kind="pi"),
        thinking=thinking,
        limits=limits(max_turns=max_turns),
        credentials=credentials,
        trace=trace or TraceContext.fresh(),
    )


def credentials(model: OfflineModel | str, *, key: str = KEY, prices: tuple[str, str] | None = None) -> Credentials:
    base_url = model if isinstance(model, str) else model.base_url
    own = prices or (None, None)
    return Credentials(
        name="offline",
        provider="offline",
        api_key=key,
        base_url=base_url,
        api="openai-completions",
        input_price=own[0],
        output_price=own[1],
    )


def settings(
    temporary: Path,
    *,
    sidecar: Path | None = None,
    node: Path | None = None,
    patience: Patience | None = None,
    path: str = "/usr/local/bin:/usr/bin:/bin",
    environment: Mapping[str, str] | None = None,
    shell_prefix: tuple[str, ...] = (),
) -> PiSettings:
    return PiSettings(
        node=node or find_node().node,
        sidecar=sidecar or ensure_pi_sidecar() / "src" / "main.js",
        temporary=temporary,
        path=path,
        environment=environment or {},
        shell_prefix=shell_prefix,
        patience=patience or Patience(),
    )


@asynccontextmanager
async def pi_harness(
    own: PiSettings, *, tools: tuple[PythonTool, ...] = (), launcher: Launcher | None = None
) -> AsyncIterator[PiHarness]:
    async with PiHarness(own, tools=tools, launcher=launcher) as harness:
        yield harness


async def perform(
    harness: Harness, wanted: HarnessRequest, seen: Callable[[HarnessEvent], None] = lambda _: None
) -> Outcome:
    """Runs to the end, and checks what the port promises of every run: one terminal event, and it is the last.

    `seen` is called with each event.
    """
    outcome = Outcome()
    async for event in harness.run(wanted):
        assert outcome.terminal is None, f"{event} came after {outcome.terminal}"
        if isinstance(event, Finished | Failed):
            outcome.terminal = event
        elif isinstance(event, Waiting):
            outcome.waited += 1
        else:
            outcome.events.append(event)
            seen(event)
    assert outcome.terminal is not None
    return outcome


def marked(part: str = "") -> list[psutil.Process]:
    """Living processes whose mark holds this text; with an empty one, any of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
            if mark is not None and part in mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


async def eventually(condition: Callable[[], object], *, within: float = 15.0) -> None:
    """Wait for something that another process brings about."""
    async with asyncio.timeout(within):
        while not condition():  # no event of ours tells of another process
            await asyncio.sleep(0.02)
