"""What of a conversation stands in a span: valid, bounded, without secrets; and who decides whether any of it does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracerProvider

from agentstream.consumers.redaction import Redactor
from agentstream.consumers.tracing.content import CUT, MAX_ATTRIBUTE, Content
from agentstream.infra.telemetry.processors import TARGET
from agentstream.infra.tracing import CAPTURE, span_maker, wants_content
from agentstream.schemas import span_names as names
from agentstream.schemas.messages import Message, TextPart

SECRET = "sk-very-secret-key"
CONTENT = Content(Redactor([SECRET]))
TEXTS = st.text(max_size=50) | st.sampled_from(["x" * 9_000, f"{SECRET} {'y' * 3_000}", '"\\' * 5_000, "é" * 20_000])


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=6))
def test_messages_are_shown_as_json_that_is_bounded_and_ends_with_the_newest(texts: list[list[str]]) -> None:
    messages = [Message(role="user", parts=tuple(TextPart(content=text) for text in each)) for each in texts]
    shown = CONTENT.messages(messages)
    assert len(shown) <= MAX_ATTRIBUTE
    assert SECRET not in shown
    read = json.loads(shown)
    assert bool(read) == bool(messages)
    for one, message in zip(reversed(read), reversed(messages), strict=False):
        for part, said in zip(one["parts"], message.parts, strict=False):
            assert isinstance(said, TextPart)
            assert (
                part["content"].removesuffix(CUT)
                == said.content.replace(SECRET, "[redacted]")[: len(part["content"].removesuffix(CUT))]
            )


def test_of_a_message_with_too_many_parts_it_is_shown_who_spoke() -> None:
    huge = Message(role="tool", parts=tuple(TextPart(content="x" * 500) for _ in range(256)))
    (shown,) = json.loads(CONTENT.messages([Message.of_text("user", "hi"), huge]))[-1:]
    assert shown["role"] == "tool"
    assert shown["parts"][-1]["content"] == CUT


def test_half_a_character_costs_no_batch_of_spans_its_export() -> None:
    shown = CONTENT.value({"a": "\ud83d", "b": [f"{SECRET}\udc00"]})
    assert shown.encode()
    assert json.loads(shown) == {"a": "?", "b": ["[redacted]?"]}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("true", True), ("SPAN_ONLY", True), ("span_and_event", True), ("event_only", False), ("no_content", False)],
)
def test_opentelemetrys_own_variable_says_whether_content_is_shown(value: str, *, wanted: bool) -> None:
    assert wants_content({CAPTURE: value}) is wanted
    assert wants_content({}) is False


def test_a_plan_says_which_names_are_written_as_well() -> None:
    def made(*wanted: str) -> tuple[bool, bool, bool]:
        maker = span_maker(
            NoOpTracerProvider(),
            group_id="g",
            redactor=Redactor([]),
            flush=lambda: None,
            content=False,
            names=frozenset(wanted),
        )
        return maker.older_token_names, maker.openinference, maker.makes_ids

    assert made() == (False, False, False)
    assert made("prompt_tokens") == (True, False, False)
    assert made("openinference") == (False, True, False)


def test_the_place_that_a_span_names_is_where_the_exporters_look_for_it() -> None:
    assert names.TRACE_TARGET == TARGET
