"""What is done about a record: the whole table of decisions."""

import json

import pytest

from agentstream.consumers.admission import Admission, Refused, Run, Unnamed
from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.tracing.process import process_span
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.schemas.codec import Bounds, body_hash, position_id
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.records import Headers, Position, Record

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CONFIG = WorkerAgentConfig(
    harnesses={"scripted": ScriptedHarness()},
    default_harness="scripted",
    tools=frozenset({"read"}),
    trace_targets=frozenset({"tenant"}),
)
CLAIM = 77


def record(
    value: object, *, key: bytes | None = b"session", headers: Headers = (), timestamp_ms: int = 1_000
) -> Record:
    return Record(
        position=Position(topic="in", partition=3, offset=17),
        timestamp_ms=timestamp_ms,
        key=key,
        value=value if isinstance(value, bytes) or value is None else json.dumps(value).encode(),
        headers=headers,
    )


def request(**fields: object) -> dict[str, object]:
    return {"id": "run", "messages": [{"role": "user", "content": "hi"}], **fields}


def decide(given: Record, known: KnownRuns | None = None, strikes: int = 0) -> Run | Refused | Unnamed | None:
    process = process_span(SpanMaker.none(), given, claim=CLAIM)
    return Admission(CONFIG, Bounds(), known or KnownRuns(), CLAIM).decide(given, process, strikes=strikes)


def test_a_good_request_runs_with_all_that_is_known_about_it() -> None:
    given = record(request(session_id="mine"), headers=[("traceparent", PARENT)])
    run = decide(given, strikes=2)
    assert isinstance(run, Run)
    assert (run.run_id, run.session_id, run.body_hash) == ("run", "mine", body_hash(given.value))
    admitted = run.admitted
    assert (admitted.request.id, admitted.request.session_id) == ("run", "mine")
    assert (admitted.position, admitted.timestamp_ms, admitted.claim, admitted.crashes) == (
        given.position,
        1_000,
        CLAIM,
        2,
    )
    assert admitted.trace.traceparent.encode() == PARENT
    assert admitted.parameters.choice.kind == "scripted"


def test_a_request_without_names_gets_them_from_its_record() -> None:
    given = record({"messages": [{"role": "user", "content": "hi"}]}, key=b"the key")
    run = decide(given)
    assert isinstance(run, Run)
    assert (run.run_id, run.session_id) == (position_id(given), "the key")


@pytest.mark.parametrize("headers", [[], [("traceparent", b"nonsense")], [("traceparent", PARENT + b"-x")]])
def test_without_a_good_trace_header_the_record_has_a_trace_of_its_own_each_time_it_is_taken(headers: Headers) -> None:
    # With a fresh trace for each delivery, what a killed worker left could not be found beside what the next one did.
    taken = [record(request(), headers=headers, timestamp_ms=at) for at in (1_000, 1_000, 2_000)]
    runs = [decide(each) for each in taken]
    first, again, other = (run.admitted.trace.trace_id for run in runs if isinstance(run, Run))
    assert first == again != other


def test_of_duplicate_trace_headers_the_last_wins() -> None:
    run = decide(record(request(), headers=[("traceparent", b"nonsense"), ("traceparent", PARENT)]))
    assert isinstance(run, Run)
    assert run.admitted.trace.traceparent.encode() == PARENT


@pytest.mark.parametrize("finished", [False, True])
def test_the_same_request_again_is_a_duplicate_while_it_runs_and_when_it_is_finished(finished: bool) -> None:
    given = record(request())
    known = KnownRuns()
    known.begin("run", body_hash(given.value))
    if finished:
        known.finish("run")
    assert decide(given, known) is None


@pytest.mark.parametrize("finished", [False, True])
def test_the_same_id_with_another_body_is_a_conflict_and_a_dead_letter_alone(finished: bool) -> None:
    known = KnownRuns()
    known.begin("run", "another hash")
    if finished:
        known.finish("run")
    given = record(request())
    decision = decide(given, known, strikes=1)
    assert isinstance(decision, Unnamed), "the run has, or will have, its own result"
    assert decision.end.problem.code == ErrorCode.DUPLICATE_CONFLICT
    assert (decision.end.fallback_id, decision.end.deliveries) == (position_id(given), 2)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, ErrorCode.MALFORMED_JSON),
        (b"", ErrorCode.MALFORMED_JSON),
        (b"\xff", ErrorCode.MALFORMED_JSON),
        (b"{", ErrorCode.MALFORMED_JSON),
        (b"[]", ErrorCode.SCHEMA_INVALID),
        ({}, ErrorCode.SCHEMA_INVALID),
        ({"messages": []}, ErrorCode.SCHEMA_INVALID),
        ({"id": "../x", "messages": [{"role": "user", "content": "hi"}]}, ErrorCode.SCHEMA_INVALID),
    ],
)
def test_a_bad_record_that_names_no_run_is_a_dead_letter_alone(value: object, code: ErrorCode) -> None:
    given = record(value, headers=[("traceparent", PARENT)])
    decision = decide(given)
    assert isinstance(decision, Unnamed)
    end = decision.end
    assert (end.problem.code, end.fallback_id, end.deliveries) == (code, position_id(given), 1)
    assert (end.record, end.body_hash, end.trace.traceparent.encode()) == (given, body_hash(given.value), PARENT)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"messages": []}, ErrorCode.SCHEMA_INVALID),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, ErrorCode.SCHEMA_INVALID),
        ({"resume": {}}, ErrorCode.UNSUPPORTED),
        ({"parameters": {"harness": {"kind": "nobodys"}}}, ErrorCode.UNKNOWN_HARNESS),
        ({"parameters": {"harness": {"kind": "pi"}}}, ErrorCode.HARNESS_NOT_ALLOWED),
        ({"parameters": {"tools": ["bash"]}}, ErrorCode.TOOL_NOT_ALLOWED),
        ({"parameters": {"harness": {"kind": "scripted", "options": {"no such": 1}}}}, ErrorCode.SCHEMA_INVALID),
    ],
)
def test_a_bad_request_that_names_its_run_is_refused_with_a_failed_result(
    fields: dict[str, object], code: ErrorCode
) -> None:
    given = record(request(session_id="mine", **fields), headers=[("traceparent", PARENT)])
    decision = decide(given, strikes=1)
    assert isinstance(decision, Refused)
    end, result = decision.end, decision.end.result
    assert decision.problem.code == code
    assert (result.run_id, result.session_id, result.status, result.error) == (
        "run",
        "mine",
        "failed",
        decision.problem,
    )
    assert (result.partition, result.claim, result.attempt, result.deltas) == (3, CLAIM, 0, "complete")
    assert result.trace_id == PARENT.decode()[3:35]
    assert (end.record, end.body_hash, end.deliveries) == (given, body_hash(given.value), 2)


def test_a_bad_record_whose_ce_id_names_a_run_is_refused_with_a_failed_result() -> None:
    decision = decide(record(b"not json", headers=[("ce_id", b"named")]))
    assert isinstance(decision, Refused)
    assert (decision.end.result.run_id, decision.end.result.session_id) == ("named", "session")


def test_a_bad_record_that_names_a_run_with_its_own_result_does_not_get_it_a_second_one() -> None:
    known = KnownRuns([("run", "hash")])
    decision = decide(record(request(messages=[])), known)
    assert isinstance(decision, Unnamed)
    assert decision.end.problem.code == ErrorCode.SCHEMA_INVALID


@pytest.mark.parametrize("timestamp_ms", [-1, 2**63 - 1, 253_402_300_800_000])
def test_a_timestamp_that_no_calendar_holds_is_left_out(timestamp_ms: int) -> None:
    # A caller may stamp a record with any number; the conversion raised, and took down each worker that read it.
    decision = decide(record(request(messages=[]), timestamp_ms=timestamp_ms))
    assert isinstance(decision, Refused)
    assert decision.end.result.requested_at is None


REDRIVEN = [("dlq-redrive-count", b"1"), ("dlq-redrive-of", b"run")]


def test_what_is_sent_again_runs_although_its_first_run_has_a_result() -> None:
    given = record(request(), headers=REDRIVEN)
    known = KnownRuns([("run", body_hash(given.value))])
    decision = decide(given, known)
    assert isinstance(decision, Run)
    assert (decision.run_id != "run", decision.admitted.redrive_of) == (True, "run")
    again = decide(given, KnownRuns([("run", body_hash(given.value)), (decision.run_id, body_hash(given.value))]))
    assert again is None


def test_what_is_sent_again_and_refused_again_has_a_failed_result_of_its_own() -> None:
    bad: list[dict[str, object]] = [{"messages": []}, {"parameters": {"harness": {"kind": "nobodys"}}}]
    for fields in bad:
        decision = decide(record(request(**fields), headers=REDRIVEN), KnownRuns([("run", "hash")]))
        assert isinstance(decision, Refused)
        assert (decision.end.result.run_id != "run", decision.end.result.redrive_of) == (True, "run")


@pytest.mark.parametrize("name", ["tenant2", "Tenant", "x" * 5_000])
def test_a_place_for_spans_that_the_worker_does_not_know_is_refused(name: str) -> None:
    refused = decide(record(request(), headers=[("agentstream-trace-target", name.encode())]))
    assert isinstance(refused, Refused)
    assert refused.problem.code is ErrorCode.UNSUPPORTED
    assert refused.problem.detail == f"agentstream-trace-target: this worker has no `{name[:64]}`"


def test_a_place_for_spans_that_the_worker_knows_is_none_of_the_runs_business() -> None:
    assert isinstance(decide(record(request(), headers=[("agentstream-trace-target", b"tenant")])), Run)
