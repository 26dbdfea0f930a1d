"""Each limit of a run, when it is due and under which code."""

import pytest

from agentstream.consumers.harness.port import RunLimits
from agentstream.consumers.watchdog import ALIVE_SECONDS, OutputMeter, Watchdog
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import (
    MessageEnded,
    PartDelta,
    PartEnded,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Message, TextPart, ToolCallResponsePart

LIMITS = RunLimits(
    total_ms=100_000,
    first_event_ms=3_000,
    idle_ms=5_000,
    tool_ms=20_000,
    max_turns=2,
    max_output_bytes=10,
    max_attempts=1,
)
TOOL = ToolStarted(tool_call_id="1", tool_name="bash")
TOOL_END = ToolEnded(tool_call_id="1", tool_name="bash", content="ok", duration_ms=1)
TURN = TurnStarted(turn=1)


@pytest.fixture
def dog() -> Watchdog:
    return Watchdog(LIMITS, started=0.0, total_due=100.0)


def code(dog: Watchdog, at: float) -> ErrorCode | None:
    failed = dog.broken(at=at)
    return failed.code if failed else None


def delta(text: str) -> PartDelta:
    return PartDelta(message_id="m", part_index=0, part_type="text", delta=text)


def test_without_a_first_event_the_attempt_is_broken_in_time(dog: Watchdog) -> None:
    assert dog.due == 3.0
    assert code(dog, 2.999) is None
    assert code(dog, 3.0) is ErrorCode.FIRST_EVENT_TIMEOUT


def test_while_the_harness_has_no_room_the_attempt_has_not_begun(dog: Watchdog) -> None:
    dog.waits(at=2.5)
    assert code(dog, 5.0) is None
    assert dog.due == 5.5
    assert code(dog, 5.5) is ErrorCode.FIRST_EVENT_TIMEOUT


def test_after_the_first_event_idleness_counts_from_the_last(dog: Watchdog) -> None:
    dog.saw(TURN, at=2.0)
    dog.saw(delta("x"), at=4.0)
    assert code(dog, 8.999) is None
    assert dog.due == 9.0
    assert code(dog, 9.0) is ErrorCode.IDLE_TIMEOUT


def test_a_running_tool_may_be_silent_for_longer_but_not_for_ever(dog: Watchdog) -> None:
    dog.saw(TOOL, at=1.0)
    assert code(dog, 20.999) is None
    assert code(dog, 21.0) is ErrorCode.TOOL_TIMEOUT


def test_after_a_tool_idleness_counts_again(dog: Watchdog) -> None:
    dog.saw(TOOL, at=1.0)
    dog.saw(TOOL_END, at=15.0)
    assert code(dog, 19.999) is None
    assert code(dog, 20.0) is ErrorCode.IDLE_TIMEOUT


def test_of_several_tools_the_oldest_is_due_first(dog: Watchdog) -> None:
    dog.saw(TOOL, at=1.0)
    dog.saw(ToolStarted(tool_call_id="2", tool_name="read"), at=4.0)
    dog.saw(TOOL_END, at=5.0)
    assert code(dog, 23.999) is None
    assert code(dog, 24.0) is ErrorCode.TOOL_TIMEOUT


def test_a_tool_whose_end_never_came_does_not_outlive_its_turn(dog: Watchdog) -> None:
    dog.saw(TOOL, at=1.0)
    dog.saw(TurnEnded(turn=1), at=2.0)
    assert code(dog, 7.0) is ErrorCode.IDLE_TIMEOUT


def test_total_time_ends_everything_also_a_busy_run(dog: Watchdog) -> None:
    dog.saw(TOOL, at=99.0)
    assert dog.due == 10.0  # readers have heard nothing
    dog.emitted(at=99.0)
    assert dog.due == 100.0
    assert code(dog, 100.0) is ErrorCode.TOTAL_TIMEOUT


def test_ten_seconds_of_silence_want_a_sign_of_life(dog: Watchdog) -> None:
    dog.saw(TOOL, at=0.0)
    assert not dog.is_silent(at=ALIVE_SECONDS - 0.001)
    assert dog.is_silent(at=ALIVE_SECONDS)
    dog.emitted(at=ALIVE_SECONDS)
    assert not dog.is_silent(at=ALIVE_SECONDS)


def test_one_turn_more_than_allowed_is_refused(dog: Watchdog) -> None:
    assert dog.saw(TurnStarted(turn=2), at=0.0) is None
    failed = dog.saw(TurnStarted(turn=3), at=0.0)
    assert failed is not None
    assert failed.code is ErrorCode.MAX_TURNS


def test_output_beyond_its_bound_is_refused(dog: Watchdog) -> None:
    assert dog.saw(delta("12345"), at=0.0) is None
    assert dog.saw(delta("67890"), at=0.0) is None
    failed = dog.saw(delta("!"), at=0.0)
    assert failed is not None
    assert failed.code is ErrorCode.OUTPUT_TOO_LARGE


def test_output_is_counted_once_whatever_carries_it() -> None:
    meter = OutputMeter()
    meter.add(delta("grüße"))
    meter.add(PartEnded(message_id="m", part_index=0, part_type="text", part=TextPart(content="grüße")))
    assert meter.add(MessageEnded(message_id="m", message=Message.of_text("assistant", "grüße"))) == 7
    meter.add(TOOL_END)
    answer = Message(role="tool", parts=(ToolCallResponsePart(id="1", response="ok"),))
    assert meter.add(MessageEnded(message_id="t", message=answer)) == 9


def test_output_without_deltas_or_tool_events_is_counted_too() -> None:
    meter = OutputMeter()
    assert meter.add(MessageEnded(message_id="m", message=Message.of_text("assistant", "12345"))) == 5
    answer = Message(role="tool", parts=(ToolCallResponsePart(id="9", response={"a": [1]}),))
    assert meter.add(MessageEnded(message_id="t", message=answer)) == 5 + len('{"a":[1]}')
