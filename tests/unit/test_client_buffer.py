from agentstream.consumers.client.buffer import EventBuffer, Voided
from agentstream.schemas.events import AnyEvent, PartDelta, PartEnded, RunEnded, RunStarted, ToolProgressed
from agentstream.schemas.messages import TextPart

DELTA = PartDelta(message_id="m", part_index=0, part_type="text", delta="x")
PROGRESS = ToolProgressed(tool_call_id="c", tool_name="bash", content="x")
PART = PartEnded(message_id="m", part_index=0, part_type="text", part=TextPart(content="xx"))
STARTED = RunStarted(harness="scripted")
ENDED = RunEnded(status="completed")


def taken(buffer: EventBuffer) -> list[AnyEvent | Voided | object]:
    return [buffer.pop() for _ in range(len(buffer))]


def test_events_come_out_as_they_went_in() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([STARTED, DELTA], 50)
    buffer.add([PART], 50)
    assert taken(buffer) == [STARTED, DELTA, PART]
    assert not buffer.lagged


def test_a_caller_who_takes_them_in_time_never_lags_however_many_there_are() -> None:
    buffer = EventBuffer(limit=100)
    for _ in range(1000):
        buffer.add([DELTA], 100)
        assert taken(buffer) == [DELTA]
    assert not buffer.lagged


def test_one_who_falls_behind_loses_deltas_and_keeps_what_carries_complete_values() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([STARTED, DELTA, PROGRESS, PART], 80)
    buffer.add([DELTA], 30)
    assert buffer.lagged
    buffer.add([DELTA, ENDED], 20)
    assert taken(buffer) == [STARTED, PART, ENDED]


def test_deltas_with_a_hole_in_them_are_not_given_later_either() -> None:
    # Half a text that goes on after a hole looks whole. Better no deltas, and the part when it ends.
    buffer = EventBuffer(limit=100)
    buffer.add([DELTA], 101)
    assert taken(buffer) == []
    buffer.add([DELTA], 10)
    assert taken(buffer) == []


def test_where_dropping_deltas_does_not_suffice_the_oldest_events_go() -> None:
    buffer = EventBuffer(limit=100)
    for _ in range(50):
        buffer.add([PART], 40)
    buffer.add([ENDED], 10)
    assert taken(buffer) == [PART, PART, ENDED]


def test_the_newest_event_stays_however_large_it_is() -> None:
    # The end of a run comes in one record with the complete message, which alone may be larger than the limit.
    buffer = EventBuffer(limit=100)
    buffer.add([PART, ENDED], 900)
    assert taken(buffer) == [ENDED]


def test_voided_events_are_never_given_and_nothing_is_said_if_none_was() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([STARTED, DELTA], 10)
    buffer.void()
    buffer.add([STARTED], 10)
    assert taken(buffer) == [STARTED]


def test_what_was_given_is_said_to_be_void_before_anything_else_and_once() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([STARTED, DELTA], 10)
    buffer.pop()
    buffer.void()
    buffer.void()
    buffer.add([STARTED], 10)
    assert taken(buffer) == [Voided(), STARTED]


def test_that_it_is_void_is_never_dropped() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([STARTED], 10)
    buffer.pop()
    buffer.void()
    for _ in range(10):
        buffer.add([PART], 90)
    assert taken(buffer) == [Voided(), PART]


def test_a_buffer_that_was_voided_has_room_again() -> None:
    buffer = EventBuffer(limit=100)
    buffer.add([DELTA], 90)
    buffer.void()
    buffer.add([DELTA], 90)
    assert not buffer.lagged
