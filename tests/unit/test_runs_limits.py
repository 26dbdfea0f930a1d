"""A run ends in time, under the right code."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.port import Finished, HarnessEvent, HarnessRequest, Terminal, Waiting
from agentstream.schemas.events import MessageEnded
from agentstream.schemas.messages import Message
from tests.unit.playing import Faulty, Played, Scene, play
from tests.virtual_time import START

Events = AsyncIterator[HarnessEvent | Terminal]
SAID = MessageEnded(turn=1, message_id="m", message=Message.of_text("assistant", "said"))
DONE = Finished(finish_reason="stop")


def limited(options: dict[str, JsonValue], *, max_attempts: int = 1, **changed: int) -> Played:
    return play(Scene(options=options, limits=replace(DEFAULT_LIMITS, max_attempts=max_attempts, **changed)))


@pytest.mark.parametrize(
    ("options", "limit", "code"),
    [
        ({"hang": "before_first"}, "first_event_ms", "first_event_timeout"),
        ({"hang": "mid_text", "text": "a b c"}, "idle_ms", "idle_timeout"),
        ({"hang": "in_tool", "tools": [{"name": "bash"}]}, "tool_ms", "tool_timeout"),
        ({"delay_ms": 50, "text": "a " * 1_000}, "total_ms", "total_timeout"),
    ],
)
def test_each_time_limit_has_its_own_code(options: dict[str, JsonValue], limit: str, code: str) -> None:
    played = limited(options, **{limit: 7_000})
    assert (played.result.status, played.code) == ("failed", code)
    assert played.ended == pytest.approx(7.0)
    assert played.abandoned == 0


def test_a_slow_tool_is_not_idle() -> None:
    tools: JsonValue = [{"name": "bash", "duration_ms": 60_000}]
    assert limited({"tools": tools}, idle_ms=1_000).result.status == "completed"


def test_too_many_turns_and_too_much_output_have_their_codes() -> None:
    assert limited({"tools": [{"name": "bash"}] * 3}, max_turns=3).code == "max_turns"
    assert limited({"tools": [{"name": "bash"}] * 2}, max_turns=3).result.status == "completed"
    played = limited({"output_bytes": 5_000_000}, max_output_bytes=10_000)
    assert played.code == "output_too_large"
    assert len(played.result.to_bytes()) < 4_096


@pytest.mark.parametrize(("total_ms", "status", "seconds"), [(60_000, "completed", 30.0), (20_000, "failed", 20.0)])
def test_waiting_for_room_in_the_harness_takes_none_of_the_time_but_the_total(
    total_ms: int, status: str, seconds: float
) -> None:
    async def crowded(_: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        for _second in range(30):
            await asyncio.sleep(1)
            yield Waiting()
        yield SAID
        yield DONE

    limits = replace(DEFAULT_LIMITS, first_event_ms=5_000, total_ms=total_ms, max_attempts=1)
    played = play(Scene(harness=Faulty(crowded), limits=limits))
    assert played.result.status == status
    assert played.ended == pytest.approx(seconds)
    assert "run.alive" in played.types


def test_total_time_covers_all_attempts_together() -> None:
    played = limited({"hang": "mid_text"}, idle_ms=4_000, total_ms=10_000, max_attempts=9)
    assert played.code == "total_timeout"
    assert played.ended == pytest.approx(10.0)
    assert played.result.attempt > 1


def test_a_wait_that_would_outlast_the_run_is_not_begun() -> None:
    played = limited({"hang": "mid_text"}, idle_ms=9_999, total_ms=10_000, max_attempts=9)
    assert (played.code, played.result.attempt) == ("idle_timeout", 1)


def test_a_deadline_caps_the_total_time() -> None:
    scene = Scene(options={"delay_ms": 100, "text": "a " * 1_000}, deadline=START + timedelta(seconds=3))
    played = play(scene)
    assert played.code == "total_timeout"
    assert played.ended == pytest.approx(5.0)  # with the tolerance of two seconds


def test_a_run_that_says_something_needs_no_sign_of_life() -> None:
    played = limited({"text": "a " * 20, "delay_ms": 9_000})
    assert played.result.status == "completed"
    assert "run.alive" not in played.types


def test_ten_seconds_of_silence_are_broken_by_a_sign_of_life() -> None:
    played = limited({"hang": "in_tool", "tools": [{"name": "bash"}]}, tool_ms=35_000)
    alive = [played.times[i] for i, record in enumerate(played.records) if record.events[-1].type == "run.alive"]
    assert alive == pytest.approx([10.0, 20.0, 30.0], abs=0.1)
