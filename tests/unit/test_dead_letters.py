"""Dead letters: the record as it was, and the reason in headers."""

from dataclasses import replace

import pytest

from agentstream.infra.cli.dead_letter_filters import Asked
from agentstream.producers.dead_letters import dead_letter, sent_again
from agentstream.schemas.codec import Delivery, decode_delivery
from agentstream.schemas.dead_letters import TRUNCATED, DeadLetter, decode_dead_letter
from agentstream.schemas.errors import MAX_DETAIL, ErrorCode, Problem
from agentstream.schemas.records import Headers, OutgoingRecord, Position, Record
from agentstream.schemas.trace import MAX_BAGGAGE_BYTES, MAX_STATE_BYTES, TraceContext

TRACE = TraceContext(trace_id="1" * 32, span_id="2" * 16, tracestate="a=b", baggage="c=d")
PROBLEM = Problem.of(ErrorCode.RATE_LIMITED, "the provider says: too many\nplease wait")


def record(value: bytes | None = b"value", key: bytes | None = b"key", headers: Headers = ()) -> Record:
    position = Position(topic="agent.invoke-requests", partition=3, offset=17)
    return Record(position=position, timestamp_ms=1, key=key, value=value, headers=headers)


def letter(
    given: Record, *, max_bytes: int = 10_000, problem: Problem = PROBLEM, deliveries: int = 2
) -> OutgoingRecord:
    return dead_letter(
        given,
        problem,
        TRACE,
        run_id="run",
        topic="dead",
        group_id="workers",
        deliveries=deliveries,
        max_bytes=max_bytes,
    )


def redelivered(sent: OutgoingRecord) -> Record:
    return record(sent.value, sent.key, sent.headers)


def test_key_value_and_headers_stay_as_they_were_and_the_reason_is_added() -> None:
    sent = letter(record(b"\xff\x00", b"\xfe", [("ce_id", b"x"), ("mine", b"\xfd"), ("mine", b"again")]))
    assert (sent.topic, sent.partition, sent.key, sent.value) == ("dead", 3, b"\xfe", b"\xff\x00")
    assert list(sent.headers) == [
        ("ce_id", b"x"),
        ("mine", b"\xfd"),
        ("mine", b"again"),
        ("__dlq.errors.topic", b"agent.invoke-requests"),
        ("__dlq.errors.partition", b"3"),
        ("__dlq.errors.offset", b"17"),
        ("__dlq.errors.group", b"workers"),
        ("__dlq.errors.message", b"the provider says: too many please wait"),
        ("__dlq.errors.delivery.count", b"2"),
        ("dlq-error-code", b"rate_limited"),
        ("dlq-error-stage", b"model"),
        ("dlq-retriable", b"true"),
        ("dlq-run-id", b"run"),
        ("agentstream-request", b"agent.invoke-requests/3/17"),
        ("traceparent", TRACE.traceparent.encode()),
        ("tracestate", b"a=b"),
        ("baggage", b"c=d"),
    ]


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b"")])
def test_absent_and_empty_are_told_apart(key: bytes | None, value: bytes | None) -> None:
    sent = letter(record(value, key))
    assert (sent.key, sent.value) == (key, value)


def test_without_a_detail_the_message_is_the_title() -> None:
    problem = Problem.of(ErrorCode.MALFORMED_JSON)
    assert dict(letter(record(), problem=problem).headers)["__dlq.errors.message"] == problem.title.encode()
    assert dict(letter(record(), problem=problem).headers)["dlq-retriable"] == b"false"


def test_the_record_s_trace_headers_are_not_written_twice() -> None:
    given = record(headers=[("traceparent", b"nonsense"), ("traceparent", b"00-x"), ("baggage", b"old")])
    names = [name for name, _ in letter(given).headers]
    assert [names.count(name) for name in ("traceparent", "tracestate", "baggage")] == [1, 1, 1]


def test_a_redriven_record_that_fails_again_tells_its_second_death_alone() -> None:
    first = letter(record(headers=[("mine", b"1"), ("dlq-redrive-count", b"1")]))
    problem = Problem.of(ErrorCode.PROVIDER_AUTH, "another reason")
    again = letter(redelivered(first), problem=problem, deliveries=1)
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    headers = dict(again.headers)
    assert (headers["dlq-error-code"], headers["__dlq.errors.message"]) == (b"provider_auth", b"another reason")
    assert (headers["mine"], headers["dlq-redrive-count"]) == (b"1", b"1")
    assert headers["__dlq.errors.delivery.count"] == b"1"


def test_up_to_the_bound_it_is_copied_and_above_it_only_the_coordinates_are_kept() -> None:
    given = record(b"x" * 1_000, headers=[("mine", b"1")])
    size = letter(given).size
    assert letter(given, max_bytes=size).value == b"x" * 1_000
    cut = letter(given, max_bytes=size - 1)
    assert (cut.key, cut.value) == (b"key", b"")
    headers = dict(cut.headers)
    assert headers[TRUNCATED] == str(given.size).encode()
    assert headers["__dlq.errors.offset"] == b"17"
    assert "mine" not in headers


def test_a_truncated_one_that_was_redriven_is_not_marked_truncated_when_it_fits() -> None:
    cut = letter(record(b"x" * 1_000), max_bytes=0)
    assert TRUNCATED not in dict(letter(redelivered(cut)).headers)


@pytest.mark.parametrize(
    "given",
    [
        record(b"v" * 1_000_000),
        record(key=b"k" * 1_000_000),
        record(headers=[("h" * 1_000_000, b"")]),
        record(headers=[("h", b"v")] * 100_000),
    ],
)
def test_a_truncated_one_is_small_whatever_was_large(given: Record) -> None:
    trace = TraceContext(
        trace_id="1" * 32, span_id="2" * 16, tracestate="s" * MAX_STATE_BYTES, baggage="b" * MAX_BAGGAGE_BYTES
    )
    problem = Problem.of(ErrorCode.INTERNAL, "ü" * 10_000)
    sent = dead_letter(
        given, problem, trace, run_id="r", topic="dead", group_id="workers", deliveries=1, max_bytes=50_000
    )
    assert sent.value == b""
    assert sent.size < MAX_STATE_BYTES + MAX_BAGGAGE_BYTES + 2 * MAX_DETAIL + 3_000
    assert sent.key == (b"key" if given.key == b"key" else None)


def read(sent: OutgoingRecord) -> DeadLetter:
    """The dead letter as it is read from its topic."""
    where = Position(topic="dead", partition=sent.partition, offset=99)
    lying = Record(position=where, timestamp_ms=5, key=sent.key, value=sent.value, headers=sent.headers)
    found = decode_dead_letter(lying)
    assert isinstance(found, DeadLetter), found
    return found


def test_a_dead_letter_gives_back_the_record_it_is_about() -> None:
    given = record(b'{"session_id":"mine"}', headers=[("mine", b"1")])
    found = read(letter(given))
    assert (found.record.position, found.record.key, found.record.value) == (given.position, given.key, given.value)
    assert ("mine", b"1") in found.record.headers
    assert not [name for name, _ in found.record.headers if name.startswith(("__dlq", "dlq-"))]
    assert (found.code, found.stage, found.retriable) == ("rate_limited", "model", True)
    assert (found.group, found.deliveries, found.run_id, found.redrives) == ("workers", "2", "run", 0)
    assert (found.session_id, found.truncated, found.position.offset) == ("mine", None, 99)
    assert read(letter(given, max_bytes=0)).truncated == given.size


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("dlq-error-code", b"internal")],
        [("__dlq.errors.topic", b"t"), ("__dlq.errors.partition", b"0"), ("__dlq.errors.offset", b"1")],
        [*letter(record()).headers, ("__dlq.errors.offset", b"-1")],
        [*letter(record()).headers, ("__dlq.errors.partition", "²".encode())],
        [*letter(record()).headers, ("dlq-error-code", b"\xff")],
    ],
)
def test_a_record_of_another_program_is_no_dead_letter(headers: Headers) -> None:
    assert isinstance(decode_dead_letter(record(headers=headers)), Problem)


GOOD = b'{"id":"asked","messages":[{"role":"user","content":"hi"}]}'


def test_sent_again_it_is_a_new_run_each_time_and_tells_which_it_was_first() -> None:
    given, names = record(GOOD, headers=[("mine", b"1")]), []
    for count in (1, 2, 3):
        found = read(letter(given))
        redrive = found.redriven(found.record)
        sent = sent_again(found.record, redrive, topic="in", partition=3)
        assert (sent.key, sent.value, redrive.count, redrive.original_id) == (b"key", GOOD, count, "run")
        assert [name for name, _ in sent.headers].count("dlq-redrive-count") == 1
        assert ("mine", b"1") in sent.headers
        given = redelivered(sent)
        delivery = decode_delivery(given)
        assert isinstance(delivery, Delivery)
        assert (delivery.request.id, delivery.redrive_of) == (redrive.run_id, "run")
        names.append(redrive.run_id)
    assert len(set(names)) == 3


@pytest.mark.parametrize("value", [GOOD, b"{", b'{"messages":[{"role":"user","content":"hi"}]}', None])
def test_a_dead_letter_that_does_not_name_its_run_has_it_from_the_record_or_its_coordinates(
    value: bytes | None,
) -> None:
    sent = letter(record(value))
    old = OutgoingRecord(
        topic="dead",
        partition=3,
        key=sent.key,
        value=sent.value,
        headers=[(name, text) for name, text in sent.headers if name != "dlq-run-id"],
    )
    found = read(old)
    assert found.run_id is None
    original = found.redriven(found.record).original_id
    assert (original == "asked") == (value == GOOD)
    assert original == read(old).redriven(found.record).original_id


def test_a_redrive_finds_its_progress_by_the_same_filters_in_whatever_order() -> None:
    # As earlier versions made it: under another name everything would be sent a second time.
    assert Asked().name == "222640537847"
    typed = Asked(codes=["b", "a"], session="s", until="2h", headers=["k=v"], partition=3)
    assert typed.name == replace(typed, codes=["a", "b"]).name == "86bf13f38d9c"
