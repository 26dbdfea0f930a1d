"""What is told of a run's attempts: each event once, the void ones too, and what is missing."""

from agentstream.consumers.attempt_history import MAX_TOOLS, EventsOfRun
from agentstream.schemas.events import AnyEvent, RunRetrying, StreamEvents, ToolEnded, ToolStarted
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.records import Position, Record
from agentstream.schemas.trace import TraceContext
from tests.support.outputs import answer
from tests.support.runs import attempt_name, flush, result_of

TRACE = TraceContext.fresh()


def record_of(events: StreamEvents, *, offset: int = 0) -> Record:
    return Record(
        position=Position(topic="t", partition=0, offset=offset),
        timestamp_ms=1,
        key=None,
        value=events.to_bytes(),
        headers=tuple(DeltaHeaders(events.run_id, events.attempt_id, TRACE).of(events.first_seq)),
    )


def history(*records: StreamEvents) -> EventsOfRun:
    found = EventsOfRun("run")
    for offset, events in enumerate(records):
        found.take(record_of(events, offset=offset))
    return found


def calls(count: int) -> list[AnyEvent]:
    return [
        event
        for number in range(count)
        for event in (
            ToolStarted(tool_call_id=str(number), tool_name="bash", arguments={"n": number}),
            ToolEnded(tool_call_id=str(number), tool_name="bash", content="ok", duration_ms=number),
        )
    ]


def test_an_event_that_was_sent_again_counts_once() -> None:
    events = answer("hi")
    (attempt,) = history(flush(events[:4]), flush(events[:4]), flush(events[2:], first_seq=2)).settled(None)
    assert sum(attempt.counts.values()) == len(events)
    assert (attempt.status, attempt.missing, attempt.voided) == ("completed", 0, False)
    assert (attempt.first.offset, attempt.last.offset) == (0, 2)


def test_the_attempt_that_the_result_names_counts_and_all_others_are_void() -> None:
    events = answer("hi")
    found = history(flush(events), flush(events, attempt=2), flush(events[:2], claim=2))
    result = result_of(claim=1, attempt=2, last_seq=len(events) - 1)
    assert [(each.claim, each.attempt, each.voided) for each in found.settled(result)] == [
        (1, 1, True),
        (1, 2, False),
        (2, 1, True),
    ]
    assert found.notes(result) == []


def test_without_a_result_the_greatest_counts_unless_it_is_to_be_tried_again() -> None:
    events = answer("hi")
    found = history(flush(events[:3]), flush(events[:2], claim=2), flush([RunRetrying(delay_ms=1)], first_seq=3))
    assert [(each.claim, each.voided, each.status) for each in found.settled(None)] == [
        (1, True, "retrying"),
        (2, False, None),
    ]
    again = history(flush([*events[:2], RunRetrying(delay_ms=1)]))
    assert [each.voided for each in again.settled(None)] == [True]


def test_what_is_missing_of_an_attempt_is_counted_and_said() -> None:
    events = answer("hi")
    found = history(flush(events[:1]), flush(events[3:5], first_seq=3))
    result = result_of(last_seq=len(events) - 1)
    (attempt,) = found.settled(result)
    assert attempt.missing == 2
    assert found.notes(result) == ["4 of the 7 events of the attempt that counts are not on the log"]
    assert "no longer on the log" in history().notes(result)[0]


def test_records_of_other_runs_and_broken_ones_are_passed_over() -> None:
    found = history(flush(answer("hi"), run_id="another"))
    found.take(Record(position=Position(topic="t", partition=0, offset=9), timestamp_ms=1, key=None, value=b"{"))
    assert found.settled(None) == ()


def test_tool_calls_are_told_with_their_arguments_up_to_a_thousand_and_counted_all() -> None:
    (attempt,) = history(flush(calls(MAX_TOOLS + 5))).settled(None)
    assert len(attempt.tools) == MAX_TOOLS
    assert attempt.counts["tool.ended"] == MAX_TOOLS + 5
    call = attempt.tools["3"]
    assert (call.name, call.arguments, call.content, call.duration_ms, call.is_error) == (
        "bash",
        {"n": 3},
        "ok",
        3,
        False,
    )
    (running,) = history(flush(calls(1)[:1])).settled(None)
    assert running.tools["0"].duration_ms is None
    assert attempt.attempt_id == attempt_name(1, 1)
