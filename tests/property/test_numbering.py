"""Whatever an agent yields and whenever, the records of an attempt make one clean, gapless, bounded stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.consumers.numbering import (
    LINGER_SECONDS,
    MAX_RECORD_BYTES,
    AttemptName,
    Numbering,
)
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    UnknownEvent,
)
from agentstream.schemas.messages import Message, ReasoningPart, TextPart, Usage
from agentstream.schemas.requests import StreamMode

NAME = AttemptName(run_id="run", session_id="session", claim=3, attempt=2, attempt_id="0190-attempt")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "aabbaabb"
MODES: list[StreamMode] = ["full", "events", "none"]

letters = st.one_of(st.text("ab", max_size=12), st.just(SECRET), st.text(max_size=8))
huge = st.builds(lambda unit, n: unit * n, st.sampled_from(["x", "\x01", "ü", "😀"]), st.sampled_from([9_000, 70_000]))
texts = st.lists(st.one_of(letters, letters, letters, huge), max_size=5)
ids = st.one_of(st.sampled_from(["m1", "m2"]), st.text(min_size=300, max_size=400))
json_values = st.one_of(
    letters, huge, st.lists(letters), st.dictionaries(letters, st.one_of(letters, huge), max_size=3)
)


@st.composite
def messages(draw: st.DrawFn) -> list[AnyEvent]:
    message_id = draw(ids)
    events: list[AnyEvent] = [MessageStarted(message_id=message_id)]
    parts: list[TextPart | ReasoningPart] = []
    for index, pieces in enumerate(draw(st.lists(texts, min_size=1, max_size=3))):
        kind = draw(st.sampled_from(["text", "reasoning"]))
        where = {"message_id": message_id, "part_index": index, "part_type": kind}
        part = (TextPart if kind == "text" else ReasoningPart)(content="".join(pieces))
        parts.append(part)
        events.append(PartStarted.model_validate(where))
        events += [PartDelta.model_validate({**where, "delta": piece}) for piece in pieces]
        events.append(PartEnded.model_validate({**where, "part": part}))
    usage = Usage(provider="p", model="m", input_tokens=1, output_tokens=1)
    return [
        *events,
        MessageEnded(message_id=message_id, message=Message(role="assistant", parts=tuple(parts)), usage=usage),
    ]


@st.composite
def tools(draw: st.DrawFn) -> list[AnyEvent]:
    call, name = draw(ids), draw(ids)
    return [
        ToolStarted(tool_call_id=call, tool_name=name, arguments=draw(json_values)),
        ToolProgressed(tool_call_id=call, tool_name=name, content="".join(draw(texts))),
        ToolEnded(tool_call_id=call, tool_name=name, content=draw(json_values), duration_ms=1),
    ]


@st.composite
def attempts(draw: st.DrawFn) -> list[AnyEvent]:
    turns = draw(st.lists(st.one_of(messages(), tools()), max_size=4))
    body: list[AnyEvent] = [event for turn in turns for event in (TurnStarted(), *turn, TurnEnded())]
    cut = draw(st.integers(0, len(body)))
    end: AnyEvent = RunEnded(status="completed") if draw(st.booleans()) else _retrying()
    return [RunStarted(harness="scripted"), *body[: draw(st.sampled_from([cut, len(body)]))], end]


def _retrying() -> RunRetrying:
    return RunRetrying(error=Problem.of(ErrorCode.PROVIDER_ERROR, "x" * 1_000), delay_ms=1)


@dataclass
class Played:
    records: list[StreamEvents]
    delays: list[float]


def play(events: list[AnyEvent], gaps: list[float], mode: StreamMode, redactor: Redactor) -> Played:
    """What a worker does, with time made up: flush when it is due, then take the next event."""
    numbering, at, records, waits = Numbering(NAME, mode=mode, redactor=redactor), 0.0, [], []
    for event, gap in zip(events, [*gaps, *([0.0] * len(events))], strict=False):
        if numbering.due is not None and numbering.due <= at + gap:
            records += numbering.flush()
        at += gap
        records += numbering.add(event, at=at, time=NOW + timedelta(seconds=at))
        waits.append((numbering.due or at) - at)
    assert numbering.flush() == []
    assert numbering.last_seq == sum(len(record.events) for record in records) - 1
    return Played(records, waits)


gaps = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.03, 2.0]), max_size=30)
redactors = st.sampled_from([Redactor(), Redactor([SECRET, SECRET + "ab"])])


def flat(records: list[StreamEvents]) -> Iterator[AnyEvent]:
    for record in records:
        for event in record.events:
            assert not isinstance(event, UnknownEvent)
            yield event


@settings(max_examples=200)
@given(attempts(), gaps, st.sampled_from(MODES), redactors)
def test_seq_has_no_gaps_and_no_record_is_too_large(
    events: list[AnyEvent], gaps: list[float], mode: StreamMode, redactor: Redactor
) -> None:
    played = play(events, gaps, mode, redactor)
    seen = list(flat(played.records))
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert all(record.first_seq == record.events[0].seq for record in played.records)
    assert all(len(record.to_bytes()) <= MAX_RECORD_BYTES for record in played.records)
    assert all(wait <= LINGER_SECONDS + 1e-6 for wait in played.delays)
    assert seen[0].type == "run.started"
    assert seen[-1].type == events[-1].type
    assert sorted(event.time for event in seen) == [event.time for event in seen]


@settings(max_examples=200)
@given(attempts(), gaps, redactors)
def test_the_deltas_of_a_part_joined_are_its_complete_text(
    events: list[AnyEvent], gaps: list[float], redactor: Redactor
) -> None:
    joined: dict[tuple[str, int], str] = {}
    ends = iter([event for event in events if isinstance(event, PartEnded)])
    for event in flat(play(events, gaps, "full", redactor).records):
        if isinstance(event, PartStarted):
            joined[event.message_id, event.part_index] = ""
        elif isinstance(event, PartDelta):
            joined[event.message_id, event.part_index] += event.delta
        elif isinstance(event, PartEnded):
            whole = next(ends).part
            assert isinstance(whole, TextPart | ReasoningPart)
            text = joined.pop((event.message_id, event.part_index))
            assert text == redactor.text(whole.content)
            assert event.truncated or (isinstance(event.part, TextPart | ReasoningPart) and event.part.content == text)


@settings(max_examples=100)
@given(attempts(), gaps, st.sampled_from(MODES))
def test_no_secret_leaves_in_any_mode(events: list[AnyEvent], gaps: list[float], mode: StreamMode) -> None:
    redactor = Redactor([SECRET])
    records = play(events, gaps, mode, redactor).records
    assert all(SECRET not in record.to_bytes().decode() for record in records)
    joined = "".join(event.delta for event in flat(records) if isinstance(event, PartDelta))
    assert mode == "full" or not joined


@given(attempts(), gaps, redactors)
def test_modes_leave_out_only_what_they_say(events: list[AnyEvent], gaps: list[float], redactor: Redactor) -> None:
    full, some, none = (list(flat(play(events, gaps, mode, redactor).records)) for mode in MODES)
    blank = {"seq": 0}
    assert [e.model_copy(update=blank) for e in full if not isinstance(e, PartDelta)] == [
        e.model_copy(update=blank) for e in some
    ]
    assert [e.type for e in none] == ["run.started", events[-1].type]


@given(attempts(), gaps, redactors)
def test_records_that_nothing_checked_are_valid_and_made_of_their_events_as_each_is_written(
    events: list[AnyEvent], gaps: list[float], redactor: Redactor
) -> None:
    for record in play(events, gaps, "full", redactor).records:
        written = record.to_bytes()
        assert StreamEvents.model_validate_json(written) == record
        assert written.endswith(b'"events":[' + b",".join(event.to_bytes() for event in record.events) + b"]}")


@given(attempts(), gaps, redactors)
def test_the_harness_keeps_its_events_as_they_were(
    events: list[AnyEvent], gaps: list[float], redactor: Redactor
) -> None:
    before = [event.model_copy(deep=True) for event in events]
    play(events, gaps, "full", redactor)
    assert events == before
