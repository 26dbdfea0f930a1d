from agentstream.consumers.transcript import Transcript, Transcripts
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    PartType,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
    UnknownEvent,
)
from agentstream.schemas.messages import Message, TextPart
from tests.support.runs import flush, result_of


def delta(text: str, *, part: int = 0, kind: PartType = "text") -> PartDelta:
    return PartDelta(message_id="m", part_index=part, part_type=kind, delta=text)


def answer(text: str) -> list[AnyEvent]:
    return [
        RunStarted(harness="scripted"),
        MessageStarted(message_id="m"),
        PartStarted(message_id="m", part_index=0, part_type="text"),
        delta(text[:2]),
        delta(text[2:]),
        PartEnded(message_id="m", part_index=0, part_type="text", part=TextPart(content=text)),
        MessageEnded(message_id="m", message=Message.of_text("assistant", text), finish_reason="stop"),
        RunEnded(status="completed"),
    ]


def types(events: "tuple[AnyEvent | UnknownEvent, ...]") -> list[str]:
    return [event.type for event in events]


def test_text_grows_with_every_delta_and_the_end_of_a_part_has_the_last_word() -> None:
    transcript = Transcript()
    seen = []
    for seq, event in enumerate(answer("hello")):
        transcript.feed(flush([event], first_seq=seq))
        seen.append(transcript.text)
    assert seen == ["", "", "", "he", "hello", "hello", "hello", "hello"]
    assert transcript.messages() == (Message.of_text("assistant", "hello"),)
    assert transcript.ended == RunEnded(status="completed").numbered(7, transcript.ended.time)  # type: ignore[union-attr]


def test_a_later_attempt_voids_what_was_shown_of_an_earlier_one_once() -> None:
    transcript = Transcript()
    assert not transcript.feed(flush(answer("first")[:4], attempt=1)).voided
    second = transcript.feed(flush(answer("second")[:4], attempt=2))
    assert second.voided
    assert transcript.text == "se"
    assert not transcript.feed(flush(answer("second")[4:], attempt=2, first_seq=4)).voided


def test_a_zombie_that_writes_late_changes_nothing() -> None:
    transcript = Transcript()
    transcript.feed(flush(answer("new")[:4], claim=2))
    late = transcript.feed(flush(answer("old"), claim=1, attempt=7))
    assert (late.events, late.voided) == ((), False)
    assert transcript.text == "ne"


def test_an_attempt_in_a_later_claim_counts_more_than_a_later_attempt_in_an_earlier_one() -> None:
    transcript = Transcript()
    transcript.feed(flush(answer("old"), claim=1, attempt=3))
    assert transcript.feed(flush(answer("new"), claim=2, attempt=1)).voided
    assert transcript.text == "new"


def test_what_is_sent_again_by_a_replaced_producer_is_given_once() -> None:
    transcript = Transcript()
    events = answer("hello")
    assert len(transcript.feed(flush(events[:5])).events) == 5
    again = transcript.feed(flush(events[3:7], first_seq=3))
    assert [event.seq for event in again.events] == [5, 6]
    assert not again.gap
    assert transcript.text == "hello"


def test_missing_events_are_said_and_named_and_may_still_come() -> None:
    transcript = Transcript()
    events = answer("hello")
    transcript.feed(flush(events[:2]))
    assert transcript.feed(flush(events[5:], first_seq=5)).gap
    assert list(transcript.rule.missing) == [range(2, 5)]
    transcript.feed(flush(events[3:4], first_seq=3))
    assert list(transcript.rule.missing) == [range(2, 3), range(4, 5)]


def test_a_reader_that_came_late_is_told_that_the_beginning_is_missing() -> None:
    transcript = Transcript()
    assert transcript.feed(flush([delta("llo")], first_seq=4)).gap
    assert transcript.rule.missing == (range(4),)


def test_a_retrying_attempt_is_void_at_once() -> None:
    transcript = Transcript()
    transcript.feed(flush(answer("hello")[:4]))
    fresh = transcript.feed(flush([RunRetrying(delay_ms=1)], first_seq=4))
    assert types(fresh.events) == ["run.retrying"]
    assert transcript.text == ""


def test_once_the_result_is_read_only_its_attempt_counts() -> None:
    transcript = Transcript()
    transcript.feed(flush(answer("lost")[:4], attempt=1))
    assert transcript.settle(result_of(attempt=2, last_seq=7)).voided
    assert transcript.text == ""
    assert not transcript.feed(flush(answer("lost")[4:], attempt=1, first_seq=4)).events
    assert not transcript.feed(flush(answer("zombie"), claim=9)).events
    late = transcript.feed(flush(answer("right"), attempt=2))
    assert len(late.events) == 8
    assert not late.voided
    assert transcript.text == "right"


def test_it_is_complete_when_the_last_event_that_the_result_names_was_seen() -> None:
    transcript = Transcript()
    transcript.settle(result_of(last_seq=7))
    transcript.feed(flush(answer("hello")[:7]))
    assert not transcript.rule.complete
    transcript.feed(flush(answer("hello")[7:], first_seq=7))
    assert transcript.rule.complete


def test_it_is_not_complete_with_a_hole() -> None:
    transcript = Transcript()
    transcript.settle(result_of(last_seq=7))
    transcript.feed(flush(answer("hello")[:3]))
    transcript.feed(flush(answer("hello")[5:], first_seq=5))
    assert not transcript.rule.complete


def test_a_result_without_an_attempt_voids_everything_and_waits_for_nothing() -> None:
    # `crash_limit`: three attempts were lost, and none ended the run.
    transcript = Transcript()
    transcript.feed(flush(answer("lost")[:4]))
    assert transcript.settle(result_of(attempt=None, last_seq=-1)).voided
    assert transcript.rule.complete
    assert not transcript.feed(flush(answer("lost")[4:], first_seq=4)).events
    assert transcript.messages() == ()


def test_a_second_result_changes_nothing() -> None:
    transcript = Transcript()
    transcript.feed(flush(answer("right")))
    transcript.settle(result_of(last_seq=7))
    assert not transcript.settle(result_of(attempt=5, last_seq=0)).voided
    assert transcript.rule.complete
    assert transcript.text == "right"


def test_a_message_too_large_for_the_topic_keeps_the_text_of_its_deltas() -> None:
    transcript = Transcript()
    events = [*answer("hello")[:5], MessageEnded(message_id="m", truncated=True)]
    transcript.feed(flush(events))
    assert transcript.truncated
    assert transcript.text == "hello"


def test_messages_stand_in_the_order_in_which_they_ended() -> None:
    transcript = Transcript()
    transcript.feed(
        flush(
            [
                MessageStarted(message_id="a"),
                MessageStarted(message_id="b", role="tool"),
                MessageEnded(message_id="b", message=Message.of_text("tool", "b")),
                MessageEnded(message_id="a", message=Message.of_text("assistant", "a")),
            ]
        )
    )
    assert [message.text for message in transcript.messages()] == ["b", "a"]


def test_reasoning_is_told_from_text_and_half_a_tool_call_is_not_shown() -> None:
    transcript = Transcript()
    transcript.feed(flush([delta("hm", kind="reasoning"), delta("so", part=1), delta('{"a', part=2, kind="tool_call")]))
    assert [part.type for message in transcript.messages() for part in message.parts] == ["reasoning", "text"]
    assert transcript.text == "so"


def test_an_event_of_a_newer_version_keeps_its_place() -> None:
    transcript = Transcript()
    record = StreamEvents.model_validate(
        flush([RunStarted(harness="scripted"), RunStarted(harness="scripted")]).model_dump()
        | {"events": [{"type": "run.started", "seq": 0, "harness": "pi"}, {"type": "run.sparkled", "seq": 1}]}
    )
    assert types(transcript.feed(record).events) == ["run.started", "run.sparkled"]
    assert not transcript.feed(flush([delta("x")], first_seq=2)).gap


def test_many_runs_are_remembered_up_to_the_limit_and_the_silent_ones_go_first() -> None:
    transcripts = Transcripts(limit=2)
    for run_id in ("a", "b"):
        transcripts.feed(flush(answer("x"), run_id=run_id))
    assert transcripts.feed(flush(answer("x"), run_id="a")).events == ()
    transcripts.feed(flush(answer("x"), run_id="c"))
    assert transcripts.feed(flush(answer("x"), run_id="a")).events == ()
    assert len(transcripts.feed(flush(answer("x"), run_id="b")).events) == 8
    assert transcripts.settle(result_of(run_id="b", attempt=2)).voided
