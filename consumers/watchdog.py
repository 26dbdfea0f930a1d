"""When a run has had enough: each of its limits, and when it is due.

Plain and synchronous; times are monotonic seconds, passed in. Pi notices neither a stalled stream nor a looping model
(one burnt 14 s of CPU in 16 s), so every limit is kept here as well, whatever the harness.
"""

import json
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.harness.port import Failed, HarnessEvent, RunLimits
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import MessageEnded
from agentstream.schemas.messages import Part

ALIVE_SECONDS: Final = 10.0
"""After so much silence on the delta topic a `run.alive` says that the run is slow, not dead."""
NEVER: Final = float("inf")


class Watchdog:
    """The limits of one attempt. Tell it what happens; ask what is due next and what is broken."""

    def __init__(self, limits: RunLimits, *, started: float, total_due: float) -> None:
        """An attempt that began at `started`, in a run that ends by `total_due`, all attempts together."""
        self._limits = limits
        self._total_due = total_due
        self._first_due = started + limits.first_event_ms / 1000
        self._last_event: float | None = None
        self._tools: dict[str, float] = {}
        self._output = OutputMeter()
        self._alive_due = started + ALIVE_SECONDS

    @property
    def due(self) -> float:
        """When to look again, by `broken` and `is_silent`."""
        return min(self._total_due, self._event_due, self._alive_due)

    def saw(self, event: HarnessEvent, *, at: float) -> Failed | None:
        """The harness yielded an event: the limit that it breaks, if any."""
        self._last_event = at
        # By `type`: an `isinstance` that says no takes 70 ns.
        match event.type:
            case "part.delta" | "part.ended" | "message.ended":
                return None if self._output.add(event) <= self._limits.max_output_bytes else self._too_large()
            case "turn.started":
                if event.turn > self._limits.max_turns:
                    return Failed(code=ErrorCode.MAX_TURNS, detail=f"the limit is {self._limits.max_turns} turns")
            case "turn.ended":
                # A tool whose end never came must not switch the idle limit off for the rest of the run.
                self._tools.clear()
            case "tool.started":
                self._tools[event.tool_call_id] = at + self._limits.tool_ms / 1000
            case "tool.ended":
                self._tools.pop(event.tool_call_id, None)
                return None if self._output.add(event) <= self._limits.max_output_bytes else self._too_large()
            case _:
                pass
        return None

    def waits(self, *, at: float) -> None:
        """The harness has no room for the run yet: the time to its first event begins when it has.

        A sidecar that died took 64 runs along, and each was tried again apart: the last ones waited for minutes.
        """
        self._first_due = at + self._limits.first_event_ms / 1000

    def emitted(self, *, at: float) -> None:
        """A record went to the delta topic."""
        self._alive_due = at + ALIVE_SECONDS

    def is_silent(self, *, at: float) -> bool:
        """Whether readers have heard nothing for too long."""
        return at >= self._alive_due

    def broken(self, *, at: float) -> Failed | None:
        """The limit that is broken by now, if any."""
        limits = self._limits
        if at >= self._total_due:
            return Failed(code=ErrorCode.TOTAL_TIMEOUT, detail="the run's total time, or its deadline, has passed")
        if at < self._event_due:
            return None
        if self._tools:
            return Failed(code=ErrorCode.TOOL_TIMEOUT, detail=f"a tool call ran longer than {limits.tool_ms} ms")
        if self._last_event is None:
            detail = f"nothing came within {limits.first_event_ms} ms"
            return Failed(code=ErrorCode.FIRST_EVENT_TIMEOUT, detail=detail)
        return Failed(code=ErrorCode.IDLE_TIMEOUT, detail=f"nothing came for {limits.idle_ms} ms")

    def _too_large(self) -> Failed:
        detail = f"the limit is {self._limits.max_output_bytes} bytes of text, reasoning and tool content"
        return Failed(code=ErrorCode.OUTPUT_TOO_LARGE, detail=detail)

    @property
    def _event_due(self) -> float:
        """By when the first event, the next one, or the end of a tool must come."""
        if self._tools:
            return min(self._tools.values())
        return self._first_due if self._last_event is None else self._last_event + self._limits.idle_ms / 1000


class OutputMeter:
    """Bytes of text, reasoning and tool content of one attempt, each counted once whatever events carry it."""

    def __init__(self) -> None:
        self._total = 0
        self._counted: dict[tuple[str, int | str], int] = {}

    def add(self, event: HarnessEvent) -> int:
        """Count one event; gives the total so far."""
        match event.type:
            case "part.delta":
                where, size = (event.message_id, event.part_index), _bytes(event.delta)
                self._counted[where] = self._counted.get(where, 0) + size
                self._total += size
            case "part.ended":
                if event.part is not None:
                    self._count((event.message_id, event.part_index), _part_bytes(event.part))
            case "message.ended":
                self._count_message(event)
            case "tool.ended":
                self._count(("tool", event.tool_call_id), _json_bytes(event.content))
            case _:
                pass
        return self._total

    def _count_message(self, event: MessageEnded) -> None:
        key: tuple[str, int | str]
        for index, part in enumerate(event.message.parts if event.message is not None else ()):
            key = ("tool", part.id) if part.type == "tool_call_response" else (event.message_id, index)
            self._count(key, _part_bytes(part))

    def _count(self, key: tuple[str, int | str], size: int) -> None:
        """A thing is at least so large: what exceeds the size already counted for it is new."""
        before = self._counted.get(key, 0)
        if size > before:
            self._counted[key] = size
            self._total += size - before


def _part_bytes(part: Part) -> int:
    match part.type:
        case "text" | "reasoning" | "blob":
            return _bytes(part.content)
        case "tool_call":
            return _json_bytes(part.arguments)
        case "tool_call_response":
            return _json_bytes(part.response)
        case _:
            return 0


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _json_bytes(value: JsonValue) -> int:
    if value is None:
        return 0
    return _bytes(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":")))
