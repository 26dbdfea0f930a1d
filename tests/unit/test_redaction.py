"""Known secrets never leave."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from agentstream.consumers.redaction import REDACTED, Redactor
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import ToolEnded, ToolStarted
from agentstream.schemas.messages import Message

SECRET = 'sk-"canary"/ü+0123456789'


@pytest.fixture
def redactor() -> Redactor:
    return Redactor([SECRET])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1],
    ],
)
def test_every_form_of_a_secret_is_replaced(redactor: Redactor, form: str) -> None:
    assert redactor.text(f"before {form} after") == f"before {REDACTED} after"


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("tail", ["", ":", "::", ":::"])
def test_a_secret_inside_a_longer_base64_text_is_replaced_wherever_it_starts(
    redactor: Redactor, user: str, tail: str
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(f"{user}{SECRET}{tail}".encode()).decode()
        clean = redactor.text(f"Authorization: Basic {encoded}")
        assert REDACTED in clean
        # What is left of it are at most the characters that mix with the neighbours' bits.
        assert len(clean.replace(REDACTED, "")) < len("Authorization: Basic ") + 4 + (len(user) + len(tail)) * 2


def test_a_model_is_redacted_in_every_text_and_key(redactor: Redactor) -> None:
    event = ToolStarted(tool_call_id="1", tool_name="bash", arguments={"type": SECRET, SECRET: [1, {"x": SECRET}]})
    assert redactor.model(event).arguments == {"type": REDACTED, REDACTED: [1, {"x": REDACTED}]}


def test_a_model_without_secrets_is_the_same_object(redactor: Redactor) -> None:
    event = ToolEnded(tool_call_id="1", tool_name="bash", content={"a": [1.5, None, True]}, duration_ms=3)
    assert redactor.model(event) is event


def test_other_values_of_a_redacted_model_stay_as_they_were(redactor: Redactor) -> None:
    event = ToolEnded(tool_call_id="1", tool_name="bash", content={"a": [1.5, None, True, SECRET]}, duration_ms=3)
    assert redactor.model(event) == event.model_copy(update={"content": {"a": [1.5, None, True, REDACTED]}})


def test_a_problem_and_a_message_are_redacted(redactor: Redactor) -> None:
    problem = Problem.of(ErrorCode.PROVIDER_AUTH, f"401: bad key {SECRET}")
    assert redactor.model(problem).detail == f"401: bad key {REDACTED}"
    assert redactor.model(Message.of_text("assistant", f"it is {SECRET}")).text == f"it is {REDACTED}"


def test_a_lone_surrogate_beside_a_secret_does_not_stop_redaction(redactor: Redactor) -> None:
    assert redactor.model(Message.of_text("assistant", f"\ud83d {SECRET}")).text == f"\ud83d {REDACTED}"


def test_words_of_the_wire_and_short_values_are_no_secrets() -> None:
    redactor = Redactor(["assistant", "provider_error", "test", ""])
    message = Message.of_text("assistant", "a test by the assistant")
    assert redactor.model(message) is message


def test_of_two_secrets_that_begin_alike_the_longer_is_replaced_whole() -> None:
    redactor = Redactor(["abcdefgh", "abcdefgh-longer"])
    assert redactor.text("abcdefgh-longer abcdefgh") == f"{REDACTED} {REDACTED}"


def test_a_stream_holds_back_only_what_may_become_a_secret() -> None:
    stream = Redactor(["abcdefgh"]).stream()
    assert stream.feed("hello abc") == "hello "
    assert stream.feed("x") == "abcx"
    assert stream.feed("abcdefg") == ""
    assert stream.feed("h!") == f"{REDACTED}!"
    assert stream.finish() == ""


def test_a_stream_waits_for_the_longer_of_two_secrets_that_begin_alike() -> None:
    redactor = Redactor(["abcdefgh", "abcdefgh-longer"])
    stream = redactor.stream()
    assert [stream.feed("x abcdefgh"), stream.feed("-long"), stream.feed("er y")] == ["x ", "", f"{REDACTED} y"]
    stream = redactor.stream()
    assert [stream.feed("abcdefgh-"), stream.feed("short")] == ["", f"{REDACTED}-short"]


def test_a_stream_joins_the_two_halves_of_a_character() -> None:
    stream = Redactor().stream()
    assert stream.feed("a\ud83d") == "a"
    assert stream.feed("\ude00b") == "\ud83d\ude00b"
