"""Whatever a run did, its fallback is small, and no record of it carries a header twice."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.producers.failed_results import MAX_FALLBACK_BYTES, too_large
from agentstream.producers.outcomes import OutcomeEncoder, RunOutcome
from agentstream.schemas.codec import decode_result
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.messages import Cost, Message, Usage
from agentstream.schemas.records import OutgoingRecord, Position, Record
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import MAX_FINISHED_BYTES, FinishedRun, HarnessInfo, InvokeResult
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import MAX_BAGGAGE_BYTES, MAX_STATE_BYTES, TraceContext
from tests.unit.test_outcomes import RECORD, RESULT

# Control characters take six bytes each in JSON, an emoji four.
huge = st.builds(lambda unit, n: unit * n, st.sampled_from(["x", "\x01", "ü", "😀", '"']), st.integers(0, 40_000))
texts = st.one_of(st.text(max_size=20), huge)
names = st.one_of(st.text(min_size=1, max_size=256), st.sampled_from(["\x01" * 256, "😀" * 256]))
traces = st.builds(
    TraceContext,
    trace_id=st.just("1" * 32),
    span_id=st.just("2" * 16),
    tracestate=st.none() | st.sampled_from(["a=b", "s" * MAX_STATE_BYTES]),
    baggage=st.none() | st.sampled_from(["a=b", "b" * MAX_BAGGAGE_BYTES]),
)


@st.composite
def results(draw: st.DrawFn) -> InvokeResult:
    error = draw(
        st.none()
        | st.builds(
            Problem,
            code=st.sampled_from(ErrorCode),
            title=texts,
            detail=st.none() | texts,
            retriable=st.booleans(),
            stage=st.sampled_from(["execute", "model"]),
        )
    )
    usage = st.builds(
        Usage, provider=texts, model=texts, input_tokens=st.integers(0, 10**30), output_tokens=st.integers(0, 9)
    )
    return InvokeResult(
        run_id=draw(st.sampled_from(["r", "r" * 128])),
        session_id=draw(names),
        partition=3,
        status=draw(st.sampled_from(["completed", "failed", "cancelled"])),
        messages=tuple(draw(st.lists(texts.map(lambda text: Message.of_text("assistant", text)), max_size=3))),
        usage=tuple(draw(st.lists(usage, max_size=3))) * draw(st.sampled_from([1, 10])),
        cost=draw(st.none() | st.sampled_from([Cost(amount="1" * 30_000, source="s"), Cost(amount="1.5", source="s")])),
        error=error,
        claim=draw(st.integers(0, 2**53)),
        attempt=1,
        attempt_id=RESULT.attempt_id,
        deltas="complete",
        parameters=AgentParameters(model="p/" + "\x01" * 192, agents_md=draw(texts)),
        harness=draw(
            st.none() | st.builds(HarnessInfo, kind=texts, versions=st.dictionaries(texts, texts, max_size=3))
        ),
        metadata=draw(st.dictionaries(st.text(max_size=128), texts, max_size=4)),
        ended_at=RESULT.ended_at,
    )


@given(results())
def test_the_fallback_of_any_result_is_at_most_16_kib_and_can_be_read(result: InvokeResult) -> None:
    small = too_large(result)
    assert len(small.to_bytes()) <= MAX_FALLBACK_BYTES
    position = Position(topic="t", partition=3, offset=1)
    read = decode_result(Record(position=position, timestamp_ms=0, key=None, value=small.to_bytes()))
    assert isinstance(read, InvokeResult)
    assert read.status == ("cancelled" if result.status == "cancelled" else "failed")
    assert read.error is not None
    if result.error is not None:
        assert read.error.code == result.error.code


headers = st.lists(
    st.tuples(
        st.one_of(
            st.text(max_size=10),
            st.sampled_from(["traceparent", "tracestate", "baggage", "dlq-error-code", "__dlq.errors.topic"]),
            st.sampled_from(["dlq-truncated", "agentstream-request", "dlq-error-stage", "dlq-retriable"]),
        ),
        st.binary(max_size=10),
    ),
    max_size=12,
    unique_by=lambda header: header[0],
)


@settings(max_examples=150)
@given(results(), headers, traces, st.sampled_from([0, 1_000, 200_000]), st.sampled_from([30_000, 1_114_112]))
def test_every_record_fits_and_carries_no_header_twice(
    result: InvokeResult,
    given_headers: list[tuple[str, bytes]],
    trace: TraceContext,
    size: int,
    bound: int,
) -> None:
    record = replace(RECORD, headers=given_headers, value=b"v" * size)
    end = RunOutcome(record=record, body_hash="0" * 16, result=result, trace=trace)
    outcome = OutcomeEncoder(Topics(), "group", max_record_bytes=bound).run(end)
    assert outcome.fallback is not None
    for written in (outcome.records, outcome.fallback()):
        for outgoing in written:
            assert outgoing.size <= bound
            unique(outgoing)


def unique(outgoing: OutgoingRecord) -> None:
    found = [name for name, _ in outgoing.headers]
    assert len(found) == len(set(found))


def longest_line(session_id: str) -> FinishedRun:
    return FinishedRun.bounded(
        status="completed", session_id=session_id, offset=2**63 - 1, attempt_id="f" * 36, body_hash="0" * 16
    )


# As long as there is room, one character more, and what takes two bytes each as JSON, or six.
@given(st.text(max_size=80) | st.builds(lambda unit, n: unit * n, st.sampled_from('x"\x01\x7fü😀'), st.integers(0, 80)))
def test_a_line_of_the_index_has_as_much_of_the_session_as_fits_into_200_bytes(session_id: str) -> None:
    line = longest_line(session_id)
    assert len(line.to_bytes()) <= MAX_FINISHED_BYTES
    assert session_id.startswith(line.session_id)
    if line.session_id != session_id[:64]:
        one_more = line.model_copy(update={"session_id": session_id[: len(line.session_id) + 1]})
        assert len(one_more.to_bytes()) > MAX_FINISHED_BYTES
