"""What one finished request leaves on the topics."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agentstream.producers.failed_results import MAX_FALLBACK_BYTES, MAX_KEPT_USAGE, too_large
from agentstream.producers.outcomes import Outcome, OutcomeEncoder, Rejected, RunOutcome
from agentstream.schemas.errors import ErrorCode, Problem, error_rule
from agentstream.schemas.messages import Message, Usage
from agentstream.schemas.records import OutgoingRecord, Position, Record
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import HarnessInfo, InvokeResult
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

TRACE = TraceContext(trace_id="1" * 32, span_id="2" * 16, tracestate="a=b", baggage="c=d")
TOPICS = Topics()
RECORD = Record(
    position=Position(topic=TOPICS.invoke_requests, partition=3, offset=17),
    timestamp_ms=1_000,
    key=b"key",
    value=b"x" * 5_000,
    headers=[("mine", b"1")],
)
HASH = "0123456789abcdef"
RESULT = InvokeResult(
    run_id="run",
    session_id="session",
    partition=3,
    status="completed",
    messages=(Message.of_text("assistant", "hello"),),
    usage=(Usage(provider="p", model="m", input_tokens=1, output_tokens=2),),
    claim=5,
    attempt=1,
    attempt_id="0190a1b2-0000-7000-8000-000000000000",
    deltas="complete",
    parameters=AgentParameters(model="p/m", agents_md="be kind"),
    harness=HarnessInfo(kind="scripted", versions={"scripted": "1"}),
    metadata={"k": "v"},
    ended_at=datetime(2026, 1, 1, tzinfo=UTC),
)
END = RunOutcome(record=RECORD, body_hash=HASH, result=RESULT, trace=TRACE, deliveries=2)


def encoder(max_record_bytes: int = 100_000) -> OutcomeEncoder:
    return OutcomeEncoder(TOPICS, "workers", max_record_bytes=max_record_bytes)


def by_topic(records: tuple[OutgoingRecord, ...]) -> dict[str, OutgoingRecord]:
    assert len({record.topic for record in records}) == len(records)
    assert {record.partition for record in records} == {3}, "all that comes of a request goes to its partition number"
    for record in records:
        names = [name for name, _ in record.headers]
        assert len(names) == len(set(names))
        assert dict(record.headers)["traceparent"] == TRACE.traceparent.encode()
    return {record.topic: record for record in records}


def failed(code: ErrorCode) -> RunOutcome:
    return replace(END, result=RESULT.model_copy(update={"status": "failed", "error": Problem.of(code, "why")}))


def fallback(outcome: Outcome) -> tuple[OutgoingRecord, ...]:
    assert outcome.fallback is not None
    return outcome.fallback()


def body(record: OutgoingRecord) -> dict[str, object]:
    fields: dict[str, object] = json.loads(record.value or b"")
    return fields


def test_a_run_leaves_its_result_and_a_line_of_the_index() -> None:
    outcome = encoder().run(END)
    records = by_topic(outcome.records)
    assert outcome.offset == 17
    assert set(records) == {TOPICS.assistant_messages, TOPICS.finished_runs}
    result, line = records[TOPICS.assistant_messages], records[TOPICS.finished_runs]
    assert (result.key, InvokeResult.model_validate_json(result.value or b"")) == (b"session", RESULT)
    assert line.key == b"run"
    assert body(line) == {
        "status": "completed",
        "session_id": "session",
        "offset": 17,
        "attempt_id": RESULT.attempt_id,
        "body_hash": HASH,
    }
    headers = dict(result.headers)
    assert (headers["ce_type"], headers["ce_subject"]) == (b"agentstream.invoke-result.v1", b"run")
    assert headers["agentstream-request"] == b"agent.invoke-requests/3/17"
    assert dict(line.headers)["ce_type"] == b"agentstream.finished-run.v1"
    assert outcome.size == sum(record.size for record in outcome.records)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_failed_run_is_a_dead_letter_as_well_where_the_table_says_so(code: ErrorCode) -> None:
    records = by_topic(encoder().run(failed(code)).records)
    assert (TOPICS.dead_letters in records) is error_rule(code).dead_letter
    if TOPICS.dead_letters in records:
        letter = records[TOPICS.dead_letters]
        assert (letter.key, letter.value) == (RECORD.key, RECORD.value)
        assert dict(letter.headers)["dlq-error-code"] == code.encode()
        assert dict(letter.headers)["__dlq.errors.delivery.count"] == b"2"


def test_a_result_that_would_be_too_large_becomes_a_failure_of_its_own() -> None:
    large = replace(END, result=RESULT.model_copy(update={"messages": (Message.of_text("assistant", "y" * 20_000),)}))
    records = by_topic(encoder(max_record_bytes=10_000).run(large).records)
    result = InvokeResult.model_validate_json(records[TOPICS.assistant_messages].value or b"")
    assert result.error is not None
    assert (result.status, result.error.code, result.messages) == ("failed", ErrorCode.OUTPUT_TOO_LARGE, ())
    assert (result.run_id, result.attempt_id, result.claim) == ("run", RESULT.attempt_id, 5)
    assert body(records[TOPICS.finished_runs])["status"] == "failed"
    letter = records[TOPICS.dead_letters]
    assert (letter.value, dict(letter.headers)["dlq-error-code"]) == (RECORD.value, b"output_too_large")


def test_what_the_brokers_refused_has_a_fallback_that_is_small_in_every_record() -> None:
    records = by_topic(fallback(encoder().run(END)))
    result = InvokeResult.model_validate_json(records[TOPICS.assistant_messages].value or b"")
    assert (result.status, result.error and result.error.code) == ("failed", ErrorCode.OUTPUT_TOO_LARGE)
    letter = records[TOPICS.dead_letters]
    # Refused for its size, the same letter again would be refused again, for ever.
    assert (letter.value, dict(letter.headers)["dlq-truncated"]) == (b"", str(RECORD.size).encode())


@pytest.mark.parametrize("code", [ErrorCode.PROVIDER_ERROR, ErrorCode.MAX_TURNS])
def test_a_failure_stays_the_failure_it_was_in_its_fallback(code: ErrorCode) -> None:
    records = by_topic(fallback(encoder().run(failed(code))))
    result = InvokeResult.model_validate_json(records[TOPICS.assistant_messages].value or b"")
    assert result.error is not None
    assert (result.error.code, result.error.detail) == (code, "why")


def test_a_cancelled_run_stays_cancelled_in_its_fallback() -> None:
    assert too_large(RESULT.model_copy(update={"status": "cancelled"})).status == "cancelled"


def test_a_fallback_keeps_what_is_small() -> None:
    small = too_large(RESULT)
    assert (small.usage, small.harness, small.parameters.model) == (RESULT.usage, RESULT.harness, "p/m")
    assert (small.messages, small.metadata, small.parameters.agents_md) == ((), {}, None)
    many = RESULT.model_copy(update={"usage": RESULT.usage * 1_000})
    assert too_large(many).usage == RESULT.usage * MAX_KEPT_USAGE, "some are better than none"
    chatty = RESULT.model_copy(update={"harness": HarnessInfo(kind="k" * MAX_FALLBACK_BYTES)})
    assert (too_large(chatty).harness, too_large(chatty).usage) == (None, RESULT.usage)


def test_a_refused_request_leaves_a_failed_result_a_line_and_a_dead_letter() -> None:
    end = failed(ErrorCode.HARNESS_NOT_ALLOWED)
    assert end.result.error is not None
    outcome = encoder().refused(end, end.result.error)
    records = by_topic(outcome.records)
    assert set(records) == {TOPICS.assistant_messages, TOPICS.finished_runs, TOPICS.dead_letters}
    assert records[TOPICS.dead_letters].value == RECORD.value
    assert body(records[TOPICS.finished_runs])["status"] == "failed"
    small = by_topic(fallback(outcome))
    assert set(small) == set(records)
    assert small[TOPICS.dead_letters].value == b""


def test_a_rejected_record_leaves_a_dead_letter_and_a_line_under_an_id_of_its_position() -> None:
    problem = Problem.of(ErrorCode.MALFORMED_JSON)
    end = Rejected(record=RECORD, fallback_id="uuid5", body_hash=HASH, problem=problem, trace=TRACE, deliveries=4)
    outcome = encoder().rejected(end)
    records = by_topic(outcome.records)
    assert set(records) == {TOPICS.finished_runs, TOPICS.dead_letters}
    assert records[TOPICS.finished_runs].key == b"uuid5"
    assert body(records[TOPICS.finished_runs])["status"] == "rejected"
    letter = records[TOPICS.dead_letters]
    assert (letter.value, dict(letter.headers)["__dlq.errors.delivery.count"]) == (RECORD.value, b"4")
    assert by_topic(fallback(outcome))[TOPICS.dead_letters].value == b""


def test_a_dead_letter_never_exceeds_the_bound_either() -> None:
    for outcome in (
        encoder(4_000).run(failed(ErrorCode.INTERNAL)),
        encoder(4_000).refused(END, Problem.of(ErrorCode.INTERNAL)),
    ):
        assert all(record.size <= 4_000 for record in outcome.records)
        assert by_topic(outcome.records)[TOPICS.dead_letters].value == b""
