"""A harness whose runs end when the test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from pydantic import JsonValue

from agentstream.consumers.harness.port import Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.schemas.events import MessageEnded, MessageStarted, PartDelta, PartStarted
from agentstream.schemas.messages import Message
from tests.support.waiting import eventually

KIND = "gated"


class GatedRun:
    """One start of one run. It says "begun " and waits at its gate."""

    def __init__(self, request: HarnessRequest) -> None:
        self.request = request
        self.cancelled = False
        self.ended = False
        self._gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def run_id(self) -> str:
        """The run."""
        return self.request.run_id

    def finish(self, text: str = "done") -> None:
        """Let it end with this text."""
        if not self._gate.done():
            self._gate.set_result(text)

    async def play(self) -> AsyncIterator[HarnessEvent | Terminal]:
        """The run's events."""
        name = f"message of {self.request.attempt_id}"
        yield MessageStarted(message_id=name)
        yield PartStarted(message_id=name, part_index=0, part_type="text")
        yield PartDelta(message_id=name, part_index=0, part_type="text", delta="begun ")
        try:
            text = await self._gate
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        yield PartDelta(message_id=name, part_index=0, part_type="text", delta=text)
        yield MessageEnded(message_id=name, message=Message.of_text("assistant", f"begun {text}"))
        self.ended = True
        yield Finished(finish_reason="stop")


class GatedHarness:
    """Remembers every start. Gates are closed until `finish`, or open from the start with `gates_open=True`."""

    kind = KIND
    versions: Mapping[str, str] = {}

    def __init__(self, *, gates_open: bool = False, on_start: Callable[[GatedRun], None] = lambda _: None) -> None:
        self.runs: list[GatedRun] = []
        self._gates_open = gates_open
        self._on_start = on_start

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """It has no options."""
        return "there are none" if options else None

    async def health(self) -> str | None:
        """It is always fit."""
        return None

    def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        """Begin a run."""
        run = GatedRun(request)
        self.runs.append(run)
        if self._gates_open:
            run.finish()
        self._on_start(run)
        return run.play()

    def of(self, run_id: str) -> list[GatedRun]:
        """All starts of a run, in order."""
        return [run for run in self.runs if run.run_id == run_id]

    async def started(self, run_id: str, times: int = 1) -> GatedRun:
        """Wait until a run was started so many times; returns that start."""
        await eventually(lambda: len(self.of(run_id)) >= times, f"{run_id} is started {times} times")
        return self.of(run_id)[times - 1]

    async def finished(self, run_id: str, text: str = "done") -> None:
        """Wait for a run's first start and let it end."""
        (await self.started(run_id)).finish(text)

    def finish_all(self) -> None:
        """Open every gate, those of later runs too."""
        self._gates_open = True
        for run in self.runs:
            run.finish()
