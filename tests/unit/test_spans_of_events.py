"""The spans of made-up events: what a harness says in odd ways, and what it leaves out."""

import json
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.tracing import notes
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.tracing.content import Content
from agentstream.consumers.tracing.spans import MAX_HELD, SpanError, nanoseconds
from agentstream.schemas import span_names as names
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    ReadEvent,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import FinishReason, Message, Usage
from tests.support.otlp_values import SpanSeen
from tests.support.spans import Recorder, assert_well_formed, by_name, process_of, tree
from tests.unit.playing import Scene

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = AttemptName(run_id="run", session_id="s", claim=1, attempt=1, attempt_id="0190")


def told(*events: ReadEvent, error: str | None = None) -> list[SpanSeen]:
    """The spans of made-up events, a second apart."""
    recorder = Recorder()
    process = process_of(recorder.maker(), Scene().admitted())
    spans = process.attempt(NAME, AgentFacts(model="p/m", harness="h"), START)
    for number, event in enumerate(events, 1):
        spans.saw(event, START + timedelta(seconds=number))
    end = nanoseconds(START + timedelta(seconds=len(events) + 1))
    spans.close(end, None if error is None else SpanError(code=error), reason=None, cost=None)
    process.committed("completed", None)
    assert_well_formed(recorder.spans)
    return [span for span in recorder.spans if span.name != "process t"]


ANSWER = Message.of_text("assistant", "hi")


class Begun(SpanProcessor):
    """Notes the names of spans that begin."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def on_start(self, span: Span, parent_context: object = None) -> None:
        self._names.append(span.name)


def test_a_model_call_that_broke_off_is_closed_with_the_error_that_its_attempt_ends_with() -> None:
    # Pi says of a provider's failure only that the message ended with an error; which one comes at the very end.
    spans = told(
        TurnStarted(turn=1),
        MessageStarted(turn=1, message_id="m"),
        PartDelta(turn=1, message_id="m", part_index=0, part_type="text", delta="h"),
        MessageEnded(turn=1, message_id="m", message=ANSWER, finish_reason="error"),
        TurnEnded(turn=1, finish_reason="error"),
        error="rate_limited",
    )
    assert tree(spans) == [
        "invoke_agent h !rate_limited",
        "  turn 1 !rate_limited",
        "    chat m !rate_limited",
    ]
    chat, turn = by_name(spans, "chat m"), by_name(spans, "turn 1")
    assert (chat.end_ns - chat.start_ns, turn.end_ns - turn.start_ns) == (3 * 10**9, 4 * 10**9)


@pytest.mark.parametrize("reason", ["tool_call", "error"])
def test_a_tool_left_open_by_its_turn_ends_with_the_turn(reason: FinishReason) -> None:
    spans = told(
        TurnStarted(turn=1),
        MessageEnded(turn=1, message_id="m", message=ANSWER, finish_reason="tool_call"),
        ToolStarted(turn=1, tool_call_id="c", tool_name="bash"),
        TurnEnded(turn=1, finish_reason=reason),
        ToolEnded(turn=1, tool_call_id="c", tool_name="bash", duration_ms=1),
        error="total_timeout",
    )
    assert tree(spans)[-1] == "    execute_tool bash !never_ended"
    tool = by_name(spans, "execute_tool bash")
    assert tool.end_ns - tool.start_ns == 10**9


def test_tools_side_by_side_are_told_apart() -> None:
    spans = told(
        TurnStarted(turn=1),
        ToolStarted(turn=1, tool_call_id="a", tool_name="read"),
        ToolStarted(turn=1, tool_call_id="b", tool_name="bash"),
        ToolEnded(turn=1, tool_call_id="b", tool_name="bash", duration_ms=1, is_error=True),
        ToolEnded(turn=1, tool_call_id="a", tool_name="read", duration_ms=1),
        TurnEnded(turn=1, finish_reason="tool_call"),
    )
    lengths = {span.name: (span.end_ns - span.start_ns) // 10**9 for span in spans if "tool" in span.name}
    assert lengths == {"execute_tool read": 3, "execute_tool bash": 1}


def test_a_turns_usage_counts_where_its_message_told_none() -> None:
    usage = Usage(provider="p", model="m", input_tokens=5, output_tokens=6)
    spans = told(
        TurnStarted(turn=1),
        MessageEnded(turn=1, message_id="m", message=ANSWER, finish_reason="stop"),
        TurnEnded(turn=1, finish_reason="stop", usage=usage),
    )
    assert by_name(spans, "chat m").attributes[names.INPUT_TOKENS] == 5


def test_events_without_order_raise_nothing_and_leave_nothing_open() -> None:
    spans = told(
        ToolEnded(tool_call_id="c", tool_name="bash", duration_ms=1),
        PartDelta(message_id="m", part_index=0, part_type="text", delta="h"),
        TurnEnded(finish_reason="stop"),
        MessageEnded(message_id="m", message=ANSWER),
        MessageStarted(message_id="m"),
        ToolStarted(tool_call_id="c", tool_name="bash"),
        ToolStarted(tool_call_id="c", tool_name="bash"),
        TurnStarted(turn=7),
        TurnStarted(turn=8),
    )
    assert sorted(span.name for span in spans) == sorted(
        ["invoke_agent h", "chat m", "execute_tool bash", "execute_tool bash", "turn 7", "chat m", "turn 8", "chat m"]
    )


def test_of_a_run_without_end_what_is_oldest_leaves_early_and_nothing_twice() -> None:
    recorder = Recorder()
    process = process_of(recorder.maker(), Scene().admitted())
    spans = process.attempt(NAME, AgentFacts(model="p/m", harness="h"), START)
    for number in range(1, 301):
        spans.saw(TurnStarted(turn=number), START)
        spans.saw(TurnEnded(turn=number, finish_reason="stop"), START)
    assert len(recorder.spans) == 600 - MAX_HELD
    spans.close(nanoseconds(START), None, reason="stop", cost=None)
    process.committed("completed", None)
    assert len(recorder.spans) == 602
    assert_well_formed(recorder.spans)


def test_a_model_call_shows_what_the_model_was_given_and_what_it_said() -> None:
    recorder = Recorder()
    process = process_of(recorder.maker(content=Content(Redactor([]))), Scene().admitted())
    asked = Message.of_text("user", "hi")
    spans = process.attempt(NAME, AgentFacts(model="p/m", harness="h", messages=(asked,)), START)
    for event in (
        TurnStarted(turn=1),
        MessageEnded(turn=1, message_id="m", message=ANSWER, finish_reason="tool_call"),
        MessageEnded(turn=1, message_id="t", message=Message.of_text("tool", "found")),
        TurnEnded(turn=1, finish_reason="tool_call"),
        TurnStarted(turn=2),
        MessageEnded(turn=2, message_id="n", message=ANSWER, finish_reason="stop"),
        TurnEnded(turn=2, finish_reason="stop"),
    ):
        spans.saw(event, START)
    spans.close(nanoseconds(START), None, reason="stop", cost=None)
    process.committed("completed", None)
    given = [
        [message["role"] for message in json.loads(str(span.attributes[names.INPUT_MESSAGES]))]
        for span in recorder.spans
        if span.name == "chat m"
    ]
    assert given == [["user"], ["user", "assistant", "tool"]]
    said = json.loads(str(by_name(recorder.spans, "invoke_agent h").attributes[names.OUTPUT_MESSAGES]))
    assert [(message["role"], message["finish_reason"]) for message in said] == [
        ("assistant", "tool_call"),
        ("assistant", "stop"),
    ]


@pytest.mark.parametrize("content", [None, Content(Redactor([]))])
def test_spans_are_made_when_their_request_ends_but_at_once_where_they_show_what_was_said(
    content: Content | None,
) -> None:
    # Made one by one between other work they take three times as long. But what was said takes milliseconds to show:
    # the loop would stand still at a commit of 300 runs.
    recorder, begun = Recorder(), list[str]()
    recorder.provider.add_span_processor(Begun(begun))
    process = process_of(recorder.maker(content=content), Scene().admitted())
    spans = process.attempt(NAME, AgentFacts(model="p/m", harness="h"), START)
    spans.saw(TurnStarted(turn=1), START)
    made = ["process t", "invoke_agent h", "turn 1", "chat m"]
    assert begun == (made[:1] if content is None else made)
    spans.close(nanoseconds(START), None, reason="stop", cost=None)
    process.committed("completed", None)
    assert begun == made


def test_each_model_call_has_a_first_chunk_and_no_second() -> None:
    def turn(number: int) -> list[ReadEvent]:
        piece = PartDelta(turn=number, message_id="m", part_index=0, part_type="text", delta="h")
        return [TurnStarted(turn=number), piece, piece, TurnEnded(turn=number, finish_reason="stop")]

    spans = told(*turn(1), *turn(2))
    calls = [span for span in spans if span.name == "chat m"]
    assert [[(event.name, event.time_ns - call.start_ns) for event in call.events] for call in calls] == [
        [(names.FIRST_CHUNK, 10**9)],
        [(names.FIRST_CHUNK, 10**9)],
    ]


class NotTheRequest(Sampler):
    """As somebody's own might be."""

    def should_sample(self, parent_context: object, trace_id: int, name: str, *_: object) -> SamplingResult:
        return SamplingResult(Decision.DROP if name.startswith("process") else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "not the request"


def test_a_sampler_that_wants_only_what_is_below_a_request_gets_that() -> None:
    recorder = Recorder(sampler=NotTheRequest())
    process = process_of(recorder.maker(), Scene().admitted())
    spans = process.attempt(NAME, AgentFacts(model="p/m", harness="h"), START)
    spans.saw(TurnStarted(turn=1), START)
    spans.close(nanoseconds(START), None, reason="stop", cost=None)
    process.committed("completed", None)
    assert tree(recorder.spans) == ["invoke_agent h", "  turn 1 !never_ended", "    chat m !never_ended"]


calls = st.sampled_from("ab")
events: st.SearchStrategy[ReadEvent] = st.one_of(
    st.builds(TurnStarted, turn=st.just(0)),
    st.builds(TurnEnded, finish_reason=st.sampled_from(("stop", "tool_call", "error"))),
    st.builds(MessageStarted, message_id=st.just("m")),
    st.builds(MessageEnded, message_id=st.just("m"), message=st.sampled_from((None, ANSWER))),
    st.builds(PartDelta, message_id=st.just("m"), part_index=st.just(0), part_type=st.just("text"), delta=st.just("h")),
    st.builds(ToolStarted, tool_call_id=calls, tool_name=st.just("read")),
    st.builds(ToolEnded, tool_call_id=calls, tool_name=st.just("read"), duration_ms=st.just(1)),
)


@given(st.lists(events, max_size=30), st.integers(1, 9))
@settings(max_examples=60)
def test_spans_are_the_same_however_many_events_are_noted_before_they_are_made(
    found: list[ReadEvent], most: int
) -> None:
    numbered = [
        TurnStarted(turn=number) if isinstance(event, TurnStarted) else event for number, event in enumerate(found, 1)
    ]
    at_the_end = told(*numbered)
    with mock.patch.object(notes, "MAX_NOTES", most):
        assert told(*numbered) == at_the_end
