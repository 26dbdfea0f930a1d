"""The one place that holds defaults: what takes effect where neither a request nor the worker's files say otherwise.

Interface descriptions (JSON Schema, AsyncAPI, `agentstream inspect`) and the worker read them here.
"""

from types import MappingProxyType
from typing import Final

from agentstream.schemas.requests import StreamMode, Thinking

HARNESS: Final = "pi"
"""The harness that runs an agent."""
TOOLS: Final[tuple[str, ...]] = ()
"""No tools: an agent gets only what is asked for and allowed."""
THINKING: Final[Thinking] = "off"
"""The cheapest; models that cannot think take no other."""
STREAM: Final[StreamMode] = "full"
"""Every event."""
AGENTS_MD: Final = ""
"""No instructions."""
LIMITS: Final = MappingProxyType(
    {
        "total_ms": 1_800_000,
        "first_event_ms": 60_000,
        "idle_ms": 120_000,
        "tool_ms": 300_000,
        "max_turns": 50,
        "max_output_bytes": 524_288,
        "max_attempts": 3,
    }
)
"""Bounds of a run, by the names of `Limits`. Numbers, never "none": Pi by itself has no turn limit and waits for ever
on a stalled stream. 512 KiB of output, written as JSON, still fits into a result of 1 MiB + 64 KiB."""
