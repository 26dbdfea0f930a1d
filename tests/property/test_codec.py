"""Whatever bytes, key and headers a record has: the codec answers, and its answer can be used."""

import json

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue

from agentstream.schemas.base import MAX_SESSION_ID, without_lone_surrogates
from agentstream.schemas.codec import (
    Rejection,
    decode_control,
    decode_events,
    decode_finished,
    decode_request,
    decode_result,
    position_id,
)
from agentstream.schemas.errors import MAX_DETAIL
from agentstream.schemas.headers import CE_ID, CE_TYPE
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import MAX_FINISHED_BYTES, FinishedRun
from tests.golden.bad_input import BAD_INPUT
from tests.golden.files import a_record, samples

CANARY = "sk-canary-0123456789"
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too, as JSON's escapes make them
NAMES = st.sampled_from(
    ["id", "session_id", "messages", "role", "content", "parts", "type", "parameters", "ttl_ms", "deadline", "resume"]
) | ANY_TEXT  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.sampled_from(["user", "text", "tool"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)
HEADERS = st.lists(
    st.tuples(st.sampled_from([CE_ID, CE_TYPE, "traceparent"]) | ANY_TEXT, st.binary(max_size=40)), max_size=4
)
KEYS = st.none() | st.binary(max_size=300) | st.text(max_size=300).map(str.encode)
REQUESTS: list[JsonValue] = [sample.value for sample in samples("invoke-request")]


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """Valid requests, in which up to three places hold something else."""
    document: JsonValue = json.loads(json.dumps(draw(st.sampled_from(REQUESTS))))
    for _ in range(draw(st.integers(0, 3))):
        node: JsonValue = document
        while isinstance(node, dict | list) and node:
            place = draw(st.sampled_from([*node] if isinstance(node, dict) else [*range(len(node))]))
            child = node[place]
            if not isinstance(child, dict | list) or draw(st.booleans()):
                node[place] = draw(JSON)
                break
            node = child
    return json.dumps(document).encode()


VALUES = st.none() | st.binary() | JSON.map(json.dumps).map(str.encode) | nearly_requests()
RECORDS = st.builds(lambda value, key, headers: a_record(value, key=key, headers=headers), VALUES, KEYS, HEADERS)


@given(RECORDS)
def test_every_record_is_a_request_or_a_rejection_that_can_be_used(record: Record) -> None:
    answer = decode_request(record)
    assert decode_request(record) == answer
    session_id = answer.session_id
    assert session_id is not None
    assert 0 < len(session_id) <= MAX_SESSION_ID
    assert session_id.encode()
    if isinstance(answer, InvokeRequest):
        assert answer.id is not None
        assert answer.resume is None
        # What was accepted can be written and read again, and then says the same.
        assert decode_request(a_record(answer.to_bytes(), key=None)) == answer
    else:
        check(answer, record)


def check(rejection: Rejection, record: Record) -> None:
    detail = rejection.problem.detail
    assert detail
    assert len(detail) <= MAX_DETAIL
    assert len(detail.splitlines()) == 1
    assert rejection.problem.to_bytes()
    assert rejection.fallback_id == position_id(record)


@given(RECORDS)
def test_no_decoder_ever_raises(record: Record) -> None:
    for decode in (decode_control, decode_events, decode_finished, decode_result):
        assert decode(record) is not None


@given(
    st.recursive(st.just(CANARY), lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=9), NAMES
)
def test_no_value_is_repeated_in_an_error(value: JsonValue, name: str) -> None:
    for document in (
        {name: value},
        {"messages": [{"role": "user", "content": "hi"}], name: value},
        {"messages": value},
    ):
        answer = decode_request(a_record(json.dumps(document).encode()))
        if isinstance(answer, Rejection):
            assert CANARY not in str(answer.problem.detail)


@given(st.sampled_from([value for value, _, _ in BAD_INPUT.values() if value and len(value) < 1_000]), st.data())
def test_bad_input_cut_or_changed_anywhere_is_answered_too(value: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(value)))
    record = a_record(value[:at] + data.draw(st.binary(max_size=3)) + value[at + 1 :])
    assert isinstance(decode_request(record), InvokeRequest | Rejection)


@given(ANY_TEXT, st.integers(0, 2**63 - 1), st.none() | st.uuids().map(str))
@example("\x00" * 300, 2**63 - 1, "0199e1a0-7b02-7d11-9a6e-2f4c5d6e7f80")
@example("😀" * 300, 2**63 - 1, "0199e1a0-7b02-7d11-9a6e-2f4c5d6e7f80")
@example('"\\' * 150, 0, None)
@example("\ud800", 0, None)
def test_a_line_of_the_index_has_at_most_200_bytes_and_the_sessions_beginning(
    session_id: str, offset: int, attempt_id: str | None
) -> None:
    line = FinishedRun.bounded(
        status="completed", session_id=session_id, offset=offset, attempt_id=attempt_id, body_hash="9f86d081884c7d65"
    )
    assert len(line.to_bytes()) <= MAX_FINISHED_BYTES
    assert without_lone_surrogates(session_id[:64]).startswith(line.session_id)
    # Nothing is cut without need: 30 bytes of a session always fit.
    if len(json.dumps(session_id)) - 2 <= 30:
        assert line.session_id == without_lone_surrogates(session_id)
    assert decode_finished(a_record(line.to_bytes())) == line


@given(JSON)
def test_what_is_cleaned_can_be_written_and_the_rest_stays(value: JsonValue) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=True)
    clean = json.dumps(without_lone_surrogates(value), ensure_ascii=False, allow_nan=True)
    assert clean.encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert clean == text
