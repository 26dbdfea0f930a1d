"""The one place that holds defaults: what takes effect where neither a request nor the worker's files say otherwise.

Interface descriptions (JSON Schema, AsyncAPI, `agentstream inspect`) and the worker read them here.
"""

from types import MappingProxyType
from typing import Final

from agentstream.schemas.errors import ErrorCode
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
RETRY: Final = MappingProxyType({"cap_ms": 30_000, "retry_after_ms": 120_000})
"""Waits between attempts, by the names of `Retry`; the first one depends on the error, see below."""
RETRY_BASE_MS: Final = 500
"""Bound of the first wait, unless the error's class has one of its own."""
RETRY_BASE_MS_OF: Final = MappingProxyType({ErrorCode.RATE_LIMITED: 2_000, ErrorCode.HARNESS_UNAVAILABLE: 1_000})
"""A provider that says "too many" needs longer than one that hiccups, and a sidecar takes 0.7 s to start."""
RETRY_CEILINGS: Final = MappingProxyType({"base_ms": 30_000, "cap_ms": 120_000, "retry_after_ms": 120_000})
"""What a request may ask for at most: the later runs of its session wait meanwhile."""
