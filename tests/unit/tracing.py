"""Plays runs with their spans recorded."""

from collections.abc import AsyncIterator
from dataclasses import replace

from pydantic import JsonValue

from agentstream.consumers.harness.port import HarnessEvent, HarnessRequest, Terminal
from tests.support.otlp_values import SpanSeen
from tests.support.spans import Recorder, assert_well_formed, process_of
from tests.unit.playing import Played, Scene, play

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
USAGE: dict[str, JsonValue] = {
    "provider": "p",
    "model": "m-2026",
    "input_tokens": 1_000,
    "output_tokens": 20,
    "cached_input_tokens": 200,
    "reasoning_tokens": 7,
}
TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "text", "duration_ms": 40}
PROCESS = "process t"


def traced(scene: Scene, recorder: Recorder, headers: dict[str, bytes] | None = None, **options: object) -> Played:
    """Play a scene as the worker does: below the span of its request, ended with what came of it."""
    process = process_of(recorder.maker(**options), scene.admitted(), tuple((headers or {}).items()))
    played = play(replace(scene, process=process))
    if played.results:
        process.concluded(played.result.error)
        process.committed(played.result.status, played.code)
    return played


def spans_of(scene: Scene, **options: object) -> list[SpanSeen]:
    recorder = Recorder()
    traced(scene, recorder, {"traceparent": PARENT}, **options)
    assert_well_formed(recorder.spans)
    assert recorder.flushed
    return recorder.spans


async def nothing(_request: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
    """A harness that ends without a word."""
    events: tuple[Terminal, ...] = ()
    for event in events:
        yield event
