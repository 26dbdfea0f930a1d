"""What becomes of a record of the input topic."""

from hashlib import sha256

import pytest
from pydantic import JsonValue

from agentstream.schemas.codec import (
    Bounds,
    Delivery,
    Rejection,
    body_hash,
    decode_control,
    decode_delivery,
    decode_request,
    position_id,
    session_of_key,
)
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.headers import CE_ID, CE_TYPE
from agentstream.schemas.records import Headers
from agentstream.schemas.redrive import Redrive
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.golden.bad_input import BAD_INPUT, OK, body, nested
from tests.golden.files import a_record


def accepted(value: bytes, *, key: bytes | None = b"session-7", headers: Headers = ()) -> InvokeRequest:
    request = decode_request(a_record(value, key=key, headers=headers))
    assert isinstance(request, InvokeRequest), request
    return request


def rejected(value: bytes | None, *, key: bytes | None = b"session-7", headers: Headers = ()) -> Rejection:
    rejection = decode_request(a_record(value, key=key, headers=headers))
    assert isinstance(rejection, Rejection), rejection
    return rejection


@pytest.mark.parametrize(("value", "code", "detail"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_rejected_with_a_line_that_names_the_place(value: bytes | None, code: str, detail: str) -> None:
    rejection = rejected(value)
    assert (rejection.problem.code, rejection.problem.detail) == (code, detail)
    assert (rejection.run_id, rejection.session_id) == (None, "session-7")
    assert rejection.fallback_id == position_id(a_record(value))


@pytest.mark.parametrize("levels", [64, 200])
def test_what_is_nested_too_deep_is_rejected(levels: int) -> None:
    problem = rejected(nested(levels)).problem
    assert problem.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert str(problem.detail).endswith("…: nested more than 64 deep")


def test_what_is_at_a_bound_is_accepted() -> None:
    for value in (nested(63), OK.ljust(MAX_REQUEST_BYTES), body(x=int("9" * 64))):
        assert accepted(value).messages == accepted(OK).messages
    bounds = Bounds(max_nodes=5)  # the object, its list, the message and its two members
    assert isinstance(decode_request(a_record(OK), bounds=bounds), InvokeRequest)
    assert isinstance(decode_request(a_record(OK), bounds=Bounds(max_nodes=4)), Rejection)


def test_the_smallest_request_gets_a_run_id_that_a_redelivery_keeps() -> None:
    first, again = accepted(OK, key=None), accepted(OK, key=None)
    elsewhere = decode_request(a_record(OK, key=None, offset=4712))
    assert isinstance(elsewhere, InvokeRequest)
    # A constant: another namespace or name would run what is redelivered across an upgrade twice.
    assert first.id == again.id == "dd2b3d39-f5d3-5399-a08f-21f556bebb72"
    assert first.session_id == first.id != elsewhere.id


@pytest.mark.parametrize(
    ("fields", "headers", "run_id"),
    [
        ({"id": "mine"}, [(CE_ID, b"theirs")], "mine"),
        ({}, [(CE_ID, b"theirs")], "theirs"),
        ({"id": None}, [(CE_ID, b"first"), (CE_ID, b"last")], "last"),
        ({}, [(CE_ID, b"../theirs")], None),
        ({}, [(CE_ID, b"theirs\n")], None),
        ({}, [(CE_ID, b"\xff")], None),
        ({}, [(CE_ID, b"")], None),
    ],
)
def test_the_run_id_is_the_bodys_else_a_valid_ce_id_else_made_of_the_position(
    fields: dict[str, JsonValue], headers: Headers, run_id: str | None
) -> None:
    request = accepted(body(**fields), headers=headers)
    assert request.id == (run_id or position_id(a_record(None)))


@pytest.mark.parametrize(
    ("fields", "key", "session_id"),
    [
        ({"session_id": "mine", "id": "run"}, b"key", "mine"),
        ({"session_id": None, "id": "run"}, "schlüssel".encode(), "schlüssel"),
        ({"id": "run"}, b"k" * 256, "k" * 256),
        ({"id": "run"}, b"k" * 257, "key-" + sha256(b"k" * 257).hexdigest()[:32]),
        ({"id": "run"}, b"\xff\x00", "key-" + sha256(b"\xff\x00").hexdigest()[:32]),
        ({"id": "run"}, b"", "run"),
        ({"id": "run"}, None, "run"),
    ],
)
def test_the_session_is_the_bodys_else_the_key_else_the_run_id(
    fields: dict[str, JsonValue], key: bytes | None, session_id: str
) -> None:
    assert accepted(body(**fields), key=key).session_id == session_id


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", b"nonsense"), ("traceparent", b"")],
        [("ce_specversion", b"99"), ("ce_time", b"yesterday"), ("content-type", b"text/plain")],
        [(CE_TYPE, b"com.example.order.v7")],
        [(CE_TYPE, b"\xff\xfe")],
        [(CE_TYPE, b"agentstream.invoke-request.v2"), (CE_TYPE, b"agentstream.invoke-request.v1")],
        [("", b""), ("x" * 10_000, b"\x00" * 10_000)],
    ],
)
def test_odd_headers_never_cost_a_request(headers: Headers) -> None:
    assert accepted(OK, headers=headers).session_id == "session-7"


@pytest.mark.parametrize("ce_type", ["agentstream.invoke-request.v2", "agentstream.cancel-run.v1", "agentstream.x"])
def test_another_type_of_ours_is_an_unsupported_version(ce_type: str) -> None:
    rejection = rejected(body(id="mine"), headers=[(CE_TYPE, ce_type.encode())])
    assert rejection.problem.code is ErrorCode.UNSUPPORTED_VERSION
    assert rejection.problem.detail == f"ce_type: {ce_type} instead of agentstream.invoke-request.v1"
    assert rejection.run_id == "mine"


def test_unknown_fields_a_byte_order_mark_and_a_null_are_accepted() -> None:
    assert accepted(b"\xef\xbb\xbf" + body(x={"y": 1}, deadline=None, parameters={"z": []})).deadline is None


@pytest.mark.parametrize(
    ("value", "headers", "run_id"),
    [
        (body(id="mine", ttl_ms=0), [(CE_ID, b"theirs")], "mine"),
        (body(id="../", ttl_ms=0), [(CE_ID, b"theirs")], "theirs"),
        (b"not JSON", [(CE_ID, b"theirs")], "theirs"),
        (b'{"id":"mine","x":NaN}', [], "mine"),
        (b'{"id":"one","id":"two"}', [], None),  # which one is meant, nobody knows
        (b'{"id":["mine"]}', [], None),
        (b"x" * (MAX_REQUEST_BYTES + 1), [(CE_ID, b"theirs")], "theirs"),
    ],
)
def test_a_rejection_names_the_run_that_is_owed_a_failed_result(
    value: bytes, headers: Headers, run_id: str | None
) -> None:
    assert rejected(value, headers=headers).run_id == run_id


@pytest.mark.parametrize(
    ("value", "key", "session_id"),
    [
        (body(session_id="mine", ttl_ms=0), b"key", "mine"),
        (body(session_id="x" * 300), b"key", "key"),
        (body(session_id="x" * 300, id="run"), None, "run"),
        (body(session_id=7), b"k" * 300, "key-" + sha256(b"k" * 300).hexdigest()[:32]),
        (b'{"session_id":"\\ud800"}', b"key", "key"),
        (b"", None, position_id(a_record(None))),
    ],
)
def test_a_rejections_session_is_told_as_far_as_it_can_be(value: bytes, key: bytes | None, session_id: str) -> None:
    assert rejected(value, key=key).session_id == session_id


def test_no_name_of_a_field_that_may_be_a_secret_is_repeated() -> None:
    problem = rejected(body(metadata={"Bearer sk-0123456789": 5})).problem
    assert problem.detail == "metadata.?: must be a string"


def test_a_cancel_is_decoded_and_anything_else_on_the_topic_is_rejected_without_a_result_owed() -> None:
    cancel = decode_control(a_record(b'{"run_id":"mine"}', headers=[(CE_TYPE, b"agentstream.cancel-run.v1")]))
    assert cancel == CancelRun(run_id="mine")
    for value, ce_type, code in [
        (b"{}", b"", ErrorCode.SCHEMA_INVALID),
        (b"", b"", ErrorCode.MALFORMED_JSON),
        (b'{"run_id":"../"}', b"", ErrorCode.SCHEMA_INVALID),
        (b'{"run_id":"mine","id":"mine"}', b"agentstream.steer-run.v1", ErrorCode.UNSUPPORTED_VERSION),
    ]:
        rejection = decode_control(a_record(value, headers=[(CE_TYPE, ce_type)]))
        assert isinstance(rejection, Rejection)
        assert (rejection.problem.code, rejection.run_id) == (code, None)


def test_the_body_hash_tells_bodies_apart() -> None:
    assert body_hash(b"test") == "9f86d081884c7d65"
    assert body_hash(None) == body_hash(b"") != body_hash(b" ")
    assert session_of_key(None) is None


REDRIVEN = [("dlq-redrive-count", b"2"), ("dlq-redrive-of", b"first")]


def test_a_request_that_was_sent_again_is_a_run_of_its_own() -> None:
    given = a_record(b'{"id":"mine","messages":[{"role":"user","content":"hi"}]}', headers=REDRIVEN)
    found = decode_delivery(given)
    assert isinstance(found, Delivery)
    assert found.redrive_of == "first"
    assert found.request.id == Redrive(original_id="first", count=2).run_id == "98eca8f3-36d8-55fc-b5d6-6138b9b89a44"
    by_body = decode_delivery(a_record(given.value, headers=REDRIVEN[:1]))
    assert isinstance(by_body, Delivery)
    assert by_body.redrive_of == "mine"


@pytest.mark.parametrize("count", [b"", b"0", b"-1", b"x", b"1.5", b"01", b"1234567", b"\xff", "²".encode()])
def test_a_count_of_redrives_that_is_none_is_refused(count: bytes) -> None:
    given = a_record(OK, headers=[("dlq-redrive-count", count), ("dlq-redrive-of", b"first")])
    found = decode_delivery(given)
    assert isinstance(found, Rejection)
    assert (found.problem.code, found.redrive_of) == (ErrorCode.SCHEMA_INVALID, None)
    assert "dlq-redrive-count" in (found.problem.detail or "")


@pytest.mark.parametrize("more", [[], [("dlq-redrive-of", b"no id")], [("dlq-redrive-of", b"")]])
def test_sent_again_for_nobody_knows_which_run_is_refused(more: Headers) -> None:
    value = b'{"messages":[{"role":"user","content":"hi"}]}'
    found = decode_delivery(a_record(value, headers=[("dlq-redrive-count", b"1"), *more]))
    assert isinstance(found, Rejection)
    assert "dlq-redrive-of" in (found.problem.detail or "")


def test_a_bad_record_that_was_sent_again_is_refused_under_its_new_name() -> None:
    found = decode_delivery(a_record(b'{"id":"first"}', headers=REDRIVEN))
    assert isinstance(found, Rejection)
    assert (found.run_id, found.redrive_of) == (Redrive(original_id="first", count=2).run_id, "first")
