"""When the records of an attempt go out, and what is cut from them."""

from datetime import UTC, datetime

import pytest

from agentstream.consumers.numbering import END_LINGER_SECONDS, LINGER_SECONDS, AttemptName, Numbering
from agentstream.consumers.redaction import REDACTED, Redactor
from agentstream.consumers.truncation import MAX_CONTENT_BYTES
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    RunAlive,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Message, TextPart, Usage
from agentstream.schemas.requests import StreamMode

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = AttemptName(run_id="run", session_id="session", claim=1, attempt=1, attempt_id="0190-attempt")


class Stream:
    """A numbering with the clock beside it."""

    def __init__(self, *secrets: str, mode: StreamMode = "full") -> None:
        self.numbering = Numbering(NAME, mode=mode, redactor=Redactor(secrets))
        self._records: list[StreamEvents] = []

    def add(self, event: AnyEvent, at: float = 0.0) -> list[StreamEvents]:
        records = self.numbering.add(event, at=at, time=NOW)
        self._records += records
        return records

    def all_events(self) -> list[object]:
        self._records += self.numbering.flush()
        return [event for record in self._records for event in record.events]


def delta(text: str, index: int = 0) -> PartDelta:
    return PartDelta(message_id="m", part_index=index, part_type="text", delta=text)


def ended(text: str, index: int = 0) -> PartEnded:
    return PartEnded(message_id="m", part_index=index, part_type="text", part=TextPart(content=text))


def types(records: list[StreamEvents]) -> list[str]:
    return [event.type for record in records for event in record.events]


@pytest.fixture
def stream() -> Stream:
    return Stream()


def test_the_first_event_of_a_run_goes_at_once(stream: Stream) -> None:
    assert types(stream.add(RunStarted(harness="pi"))) == ["run.started"]


def test_the_first_token_of_a_part_goes_at_once_with_all_that_waited(stream: Stream) -> None:
    assert stream.add(TurnStarted()) == []
    assert stream.add(PartStarted(message_id="m", part_index=0, part_type="text")) == []
    assert types(stream.add(delta("Hel"))) == ["turn.started", "part.started", "part.delta"]
    assert stream.add(delta("lo")) == []
    assert types(stream.add(delta("2nd part", index=1))) == ["part.delta", "part.delta"]


def test_adjacent_deltas_of_a_part_become_one(stream: Stream) -> None:
    stream.add(delta("a"))
    for text in "bcd":
        assert stream.add(delta(text)) == []
    (record,) = stream.numbering.flush()
    assert [event.model_dump(include={"seq", "delta"}) for event in record.events] == [{"seq": 1, "delta": "bcd"}]


def test_what_waits_is_due_25_ms_after_the_first_of_it(stream: Stream) -> None:
    stream.add(delta("a"), at=1.0)
    assert stream.numbering.due is None
    stream.add(delta("b"), at=2.0)
    stream.add(delta("c"), at=2.02)
    assert stream.numbering.due == 2.0 + LINGER_SECONDS


def test_the_end_of_a_part_is_due_sooner(stream: Stream) -> None:
    stream.add(delta("a"), at=1.0)
    stream.add(delta("b"), at=2.0)
    assert stream.add(ended("ab"), at=2.001) == []
    assert stream.numbering.due == 2.001 + END_LINGER_SECONDS


def test_four_kilobytes_do_not_wait(stream: Stream) -> None:
    stream.add(delta("a"))
    assert stream.add(delta("x" * 2_000)) == []
    assert types(stream.add(delta("x" * 2_000))) == ["part.delta"]


@pytest.mark.parametrize("last", [RunEnded(status="completed"), RunRetrying(delay_ms=5)])
def test_the_end_of_an_attempt_goes_at_once_with_all_that_waited(stream: Stream, last: AnyEvent) -> None:
    stream.add(delta("a"))
    stream.add(delta("b"))
    assert types(stream.add(last)) == ["part.delta", last.type]


def test_numbers_are_given_after_the_filter_so_that_they_have_no_gaps() -> None:
    stream = Stream(mode="none")
    records = stream.add(RunStarted(harness="pi"))
    for event in (TurnStarted(), delta("a"), ended("a"), RunAlive()):
        assert stream.add(event) == []
    records += stream.add(RunEnded(status="completed"))
    assert [(r.first_seq, r.events[0].type) for r in records] == [(0, "run.started"), (1, "run.ended")]


def test_a_delta_without_text_is_no_event(stream: Stream) -> None:
    assert stream.add(delta("")) == []
    assert stream.numbering.due is None


def test_a_secret_split_over_deltas_never_shows() -> None:
    stream = Stream("sk-12345678")
    records = [record for piece in ("key: sk", "-1234", "5678", "!") for record in stream.add(delta(piece))]
    records += stream.add(ended("key: sk-12345678!")) + stream.numbering.flush()
    assert "12345678" not in "".join(record.to_bytes().decode() for record in records)
    shown = [e.delta for record in records for e in record.events if isinstance(e, PartDelta)]
    assert "".join(shown) == f"key: {REDACTED}!"


def test_a_held_back_end_shows_when_the_attempt_ends_before_its_part() -> None:
    stream = Stream("sk-12345678")
    assert types(stream.add(delta("my sk"))) == ["part.delta"]
    records = stream.add(RunEnded(status="failed", error=Problem.of(ErrorCode.PROVIDER_ERROR)))
    assert [getattr(event, "delta", None) for event in records[0].events] == ["sk", None]


SECRET = "sk-4f9a-0b7c-hidden"
SPOKEN = Usage(provider=f"by {SECRET}", model="m", input_tokens=1, output_tokens=1)
NAMED = Usage(provider="p", model=SECRET, input_tokens=1, output_tokens=1)
SAID = Message.of_text("assistant", "hi")


@pytest.mark.parametrize(
    "event",
    [
        RunStarted(harness=SECRET),
        RunStarted(harness="pi", model=f"p/{SECRET}"),
        RunEnded(status="completed", usage=(NAMED,)),
        RunEnded(status="failed", error=Problem.of(ErrorCode.INTERNAL, f"it was {SECRET}")),
        TurnEnded(usage=SPOKEN),
        MessageStarted(message_id=SECRET),
        MessageEnded(message_id=SECRET, message=SAID),
        MessageEnded(message_id="m", message=SAID.model_copy(update={"name": SECRET})),
        MessageEnded(message_id="m", message=Message.of_text("assistant", f"it is {SECRET}.")),
        MessageEnded(message_id="m", message=SAID, usage=NAMED),
        PartStarted(message_id=SECRET, part_index=0, part_type="text"),
        PartEnded(message_id=SECRET, part_index=0, part_type="text", part=TextPart(content="hi")),
        ended(f"it is {SECRET}."),
        ToolStarted(tool_call_id="c", tool_name="t", arguments={SECRET: 1}),
        ToolEnded(tool_call_id="c", tool_name="t", content=[SECRET], duration_ms=1),
    ],
)
def test_no_text_of_any_event_shows_a_secret(event: AnyEvent) -> None:
    stream = Stream(SECRET)
    stream.add(event)
    (shown,) = stream.all_events()
    assert isinstance(shown, type(event))
    assert SECRET not in shown.to_bytes().decode()
    assert REDACTED in shown.to_bytes().decode()


def test_large_tool_output_is_cut_and_marked(stream: Stream) -> None:
    stream.add(ToolEnded(tool_call_id="1", tool_name="bash", content="ü" * 20_000, duration_ms=1))
    stream.add(ToolEnded(tool_call_id="2", tool_name="bash", content={"out": "x" * 20_000}, duration_ms=1))
    stream.add(ToolEnded(tool_call_id="3", tool_name="bash", content={"out": "small"}, duration_ms=1))
    (first, second, third) = [e for e in stream.all_events() if isinstance(e, ToolEnded)]
    assert isinstance(first.content, str)
    assert first.truncated
    assert len(first.content.encode()) == MAX_CONTENT_BYTES
    assert isinstance(second.content, str)
    assert second.truncated
    assert second.content.startswith('{"out": "xxx')
    assert (third.content, third.truncated) == ({"out": "small"}, False)


def test_of_a_tools_progress_the_newest_is_kept(stream: Stream) -> None:
    stream.add(ToolProgressed(tool_call_id="1", tool_name="bash", content="x" * 20_000 + "newest"))
    (event,) = stream.all_events()
    assert isinstance(event, ToolProgressed)
    assert event.truncated
    assert event.content.endswith("newest")


def test_large_arguments_parts_and_messages_are_left_out_and_marked(stream: Stream) -> None:
    text = "x" * 70_000
    stream.add(ToolStarted(tool_call_id="1", tool_name="bash", arguments={"code": text}))
    stream.add(ended(text))
    stream.add(MessageEnded(message_id="m", message=Message.of_text("assistant", text)))
    tool, part, message = stream.all_events()
    assert isinstance(tool, ToolStarted)
    assert (tool.arguments, tool.truncated) == (None, True)
    assert isinstance(part, PartEnded)
    assert (part.part, part.truncated) == (None, True)
    assert isinstance(message, MessageEnded)
    assert (message.message, message.truncated) == (None, True)


def test_a_name_without_end_is_cut_but_stays_unlike_others(stream: Stream) -> None:
    for last in "ab":
        stream.add(ToolStarted(tool_call_id="x" * 100_000 + last, tool_name="bash"))
    first, second = [e for e in stream.all_events() if isinstance(e, ToolStarted)]
    assert len(first.tool_call_id) == 256
    assert first.tool_call_id != second.tool_call_id
