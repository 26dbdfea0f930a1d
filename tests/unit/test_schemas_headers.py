"""Headers: CloudEvents, trace context, duplicates; and the table of topics."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from agentstream.schemas.headers import (
    INVOKE_RESULT,
    DeltaHeaders,
    cloud_event,
    header_text,
    last_wins,
)
from agentstream.schemas.records import Position, Record
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES, Topics
from agentstream.schemas.trace import TraceContext

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("traceparent", "understood"),
    [
        (PARENT, True),
        (f" {PARENT}\n", True),
        (PARENT.replace("00-", "cc-", 1) + "-what-the-future-will-be-like", True),
        (PARENT + "-more", False),
        (PARENT.replace("00-", "ff-", 1), False),
        (PARENT.upper(), False),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_a_traceparent_is_understood_or_passed_over(traceparent: str, *, understood: bool) -> None:
    context = TraceContext.parse({"traceparent": traceparent.encode()})
    assert (context is not None) is understood


@pytest.mark.parametrize("state", [b"a=b\r\nauthorization: x", b"\xff", b"a" * 513, b"", b"a=\x00"])
def test_a_tracestate_that_could_not_be_sent_on_is_dropped_and_the_trace_goes_on(state: bytes) -> None:
    context = TraceContext.parse({"traceparent": PARENT.encode(), "tracestate": state})
    assert context is not None
    assert context.to_headers() == [("traceparent", PARENT.encode())]


def test_a_child_stays_in_its_trace() -> None:
    parent = TraceContext.parse({"traceparent": PARENT.encode(), "tracestate": b"a=b", "baggage": b"c=d"})
    assert parent is not None
    child = parent.child()
    assert (child.trace_id, child.flags, child.tracestate, child.baggage) == (parent.trace_id, "01", "a=b", "c=d")
    assert child.span_id != parent.span_id
    assert TraceContext.fresh().trace_id != TraceContext.fresh().trace_id


def test_of_duplicates_the_last_wins_and_none_is_written_twice() -> None:
    assert last_wins([("a", b"1"), ("b", b"2"), ("a", b"3")]) == {"a": b"3", "b": b"2"}
    trace = TraceContext(trace_id="1" * 32, span_id="2" * 16, tracestate="a=b", baggage="c=d")
    position = Position(topic="agent.invoke-requests", partition=3, offset=17)
    for headers in (cloud_event(INVOKE_RESULT, "run", trace, request=position), DeltaHeaders("run", "a", trace).of(4)):
        names = [name for name, _ in headers]
        assert len(names) == len(set(names))


def test_the_headers_of_an_attempt_s_records_differ_in_nothing_but_where_they_begin() -> None:
    trace = TraceContext(trace_id="1" * 32, span_id="2" * 16, tracestate="a=b")
    assert DeltaHeaders("run", "attempt", trace).of(17) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"attempt-17"),
        ("ce_source", b"/agentstream"),
        ("ce_type", b"agentstream.stream-events.v1"),
        ("ce_subject", b"run"),
        ("ce_sequence", b"17"),
        ("traceparent", trace.traceparent.encode()),
        ("tracestate", b"a=b"),
    ]
    headers = DeltaHeaders("run", "attempt", trace)
    assert [headers.of(seq) for seq in (0, 17)] == [DeltaHeaders("run", "attempt", trace).of(seq) for seq in (0, 17)]


@pytest.mark.parametrize("long", [1, 128])
def test_the_headers_of_a_delta_record_are_never_larger_than_they_say(long: int) -> None:
    # What waits for the brokers is bounded by it, and so is a record that they would refuse.
    trace = TraceContext(trace_id="1" * 32, span_id="2" * 16, tracestate="a" * 4 * long, baggage="b" * 60 * long)
    for context in (trace, TraceContext.fresh()):
        headers = DeltaHeaders("r" * long, "0" * 36, context)
        weighed = [sum(len(name) + len(value) + 10 for name, value in headers.of(seq)) for seq in (0, 10**12 - 1)]
        assert headers.size - 40 <= weighed[0] < weighed[1] <= headers.size


def test_the_time_of_an_event_is_an_instant_in_utc_to_the_millisecond() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    written = dict(cloud_event(INVOKE_RESULT, "run", TraceContext.fresh()))["ce_time"].decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", written)
    assert before < datetime.fromisoformat(written) <= datetime.now(UTC)


def test_a_header_that_is_absent_empty_or_no_text_is_none() -> None:
    headers = {"empty": b"", "bytes": b"\xff", "text": "ü".encode()}
    assert [header_text(headers, name) for name in ("absent", "empty", "bytes", "text")] == [None, None, None, "ü"]


def test_what_comes_of_a_request_says_where_the_request_lies() -> None:
    position = Position(topic="agent.invoke-requests", partition=3, offset=17)
    headers = dict(cloud_event(INVOKE_RESULT, "run", TraceContext.fresh(), ce_id="given", request=position))
    assert headers["agentstream-request"] == b"agent.invoke-requests/3/17"
    assert (headers["ce_id"], headers["ce_causationid"], headers["ce_subject"]) == (b"given", b"run", b"run")


def test_a_record_weighs_its_key_value_and_headers() -> None:
    position = Position(topic="t", partition=0, offset=0)
    record = Record(position=position, timestamp_ms=0, key=b"12", value=None, headers=[("abc", b"de")])
    assert record.size == 7


def test_every_output_can_hold_what_a_request_of_the_largest_size_may_come_to() -> None:
    topics = Topics(prefix="team.")
    plans = {plan.name: plan for plan in topics.plan(12, max_request_bytes=2 * MAX_REQUEST_BYTES)}
    assert {plan.partitions for plan in plans.values() if plan.name != topics.control} == {12}
    assert plans[topics.control].partitions == 1
    assert plans[topics.invoke_requests].max_message_bytes == 2 * MAX_REQUEST_BYTES
    for name in (topics.assistant_messages, topics.dead_letters):
        assert plans[name].max_message_bytes == 2 * MAX_REQUEST_BYTES + OUTPUT_MARGIN_BYTES
    # A request must never find an output missing.
    assert [*plans][-1] == topics.invoke_requests
    assert set(topics.outputs) < set(plans)
