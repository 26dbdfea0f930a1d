"""Ids and trace context of spans, and what is said in them of content."""

import json
from dataclasses import replace

import pytest

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.tracing.content import CUT, Content
from agentstream.consumers.tracing.ids import span_id_of
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.schemas import span_names as names
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.trace import TraceContext
from tests.support.spans import Recorder, by_name, process_of
from tests.unit.playing import Faulty, Scene, play
from tests.unit.tracing import PARENT, PROCESS, TOOL, nothing, spans_of, traced


def test_ids_are_those_that_another_process_derives() -> None:
    recorder = Recorder()
    played = traced(Scene(options={"text": "well", "tools": [TOOL]}), recorder)
    attempt_id = played.result.attempt_id or ""
    ids = {span.name: span.span_id for span in recorder.spans if span.attributes.get(names.TURN) != 2}
    assert ids["invoke_agent scripted"] == span_id_of(attempt_id, "agent", 0)
    assert ids["turn 1"] == span_id_of(attempt_id, "turn", 1)
    assert ids["execute_tool read"] == span_id_of(attempt_id, "tool", 1)
    chats = {span.span_id for span in recorder.spans if span.name == "chat m"}
    assert chats == {span_id_of(attempt_id, "chat", 1), span_id_of(attempt_id, "chat", 2)}


def test_the_harness_gets_the_context_of_its_attempt() -> None:
    recorder = Recorder()
    harness = Faulty(nothing)
    headers = {"traceparent": PARENT, "tracestate": b"a=b", "baggage": b"c=d"}
    traced(Scene(harness=harness, limits=replace(DEFAULT_LIMITS, max_attempts=1)), recorder, headers)
    (request,) = harness.requests
    agent = by_name(recorder.spans, "invoke_agent scripted")
    assert (request.trace.trace_id, request.trace.span_id) == (agent.trace_id, agent.span_id)
    assert (request.trace.tracestate, request.trace.baggage) == ("a=b", "c=d")


def test_an_unsampled_request_is_not_recorded_and_its_flag_goes_on() -> None:
    recorder = Recorder()
    harness = Faulty(nothing)
    unsampled = PARENT.removesuffix(b"01") + b"00"
    traced(Scene(harness=harness, limits=replace(DEFAULT_LIMITS, max_attempts=1)), recorder, {"traceparent": unsampled})
    assert recorder.spans == []
    assert harness.requests[0].trace.flags == "00"
    assert harness.requests[0].trace.trace_id == PARENT.split(b"-")[1].decode()


def test_a_malformed_traceparent_begins_a_trace_of_its_own() -> None:
    recorder = Recorder()
    played = traced(Scene(options={"text": "hi"}), recorder, {"traceparent": b"00-garbage"})
    process = by_name(recorder.spans, PROCESS)
    assert process.parent_id is None
    assert process.links == ()
    assert process.trace_id == played.result.trace_id != PARENT.split(b"-")[1].decode()


def test_a_malformed_tracestate_is_carried_on_and_says_nothing_in_our_log(caplog: pytest.LogCaptureFixture) -> None:
    harness = Faulty(nothing)
    limits = replace(DEFAULT_LIMITS, max_attempts=1)
    for state in (b"A=b", b"novalue", b"a=b,a=c", b",".join(b"k%d=v" % n for n in range(40))):
        headers = {"traceparent": PARENT, "tracestate": state}
        traced(Scene(harness=harness, limits=limits), Recorder(), headers)
        assert harness.requests[-1].trace.tracestate == state.decode()
    assert not [line for line in caplog.records if line.name.startswith("opentelemetry")]


def test_without_an_sdk_the_callers_context_goes_through_as_it_came() -> None:
    harness = Faulty(nothing)
    play(Scene(harness=harness, limits=replace(DEFAULT_LIMITS, max_attempts=1)))
    assert harness.requests[0].trace == TraceContext(trace_id="a" * 32, span_id="b" * 16)


@pytest.mark.parametrize("flags", [b"00", b"01", b"03"])
@pytest.mark.parametrize("state", [b"a=b,c=d", b"A=b", b"a=b,a=c", None])
def test_without_an_sdk_all_that_is_sent_carries_the_callers_context(state: bytes | None, flags: bytes) -> None:
    parent = PARENT.removesuffix(b"01") + flags
    headers = {"traceparent": parent, "baggage": b"k=v", **({} if state is None else {"tracestate": state})}
    process = process_of(SpanMaker.none(), Scene().admitted(), tuple(headers.items()))
    for trace in (process.trace, process.attempt_trace("any"), process.send_trace("any")):
        assert dict(trace.to_headers()) == headers


def test_without_an_sdk_a_request_that_brought_no_context_has_the_one_that_spans_would_have_had() -> None:
    # The next owner may export spans: it must go on in the trace whose id is on the log.
    admitted = Scene().admitted()
    process = process_of(SpanMaker.none(), admitted)
    traced = process_of(Recorder().maker(), admitted)
    assert process.trace.trace_id == traced.trace.trace_id
    assert process.trace.span_id == traced.trace.span_id
    assert process.send_trace("any") == process.attempt_trace("any") == process.trace


def test_content_stands_in_spans_only_if_asked_for_redacted_and_bounded() -> None:
    secret = "sk-very-secret-key"
    long = f"{secret} {'x' * 20_000}"
    scene = Scene(options={"text": long, "tools": [{**TOOL, "result": long}]}, text=f"say {secret}", secrets=(secret,))
    spans = spans_of(scene, content=Content(Redactor([secret])), openinference=True)
    agent, tool = by_name(spans, "invoke_agent scripted"), by_name(spans, "execute_tool read")
    asked = json.loads(str(agent.attributes[names.INPUT_MESSAGES]))
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "say [redacted]"}]}]
    said = json.loads(str(agent.attributes[names.OUTPUT_MESSAGES]))
    assert [message["role"] for message in said] == ["assistant", "assistant"]
    text = said[-1]["parts"][0]["content"]
    assert text.startswith("[redacted] xxx")
    assert text.endswith(CUT)
    assert len(text) < 9_000
    assert json.loads(str(tool.attributes[names.TOOL_ARGUMENTS])) == {"path": "a"}
    assert str(tool.attributes[names.TOOL_RESULT]).startswith("[redacted] xxx")
    assert not any(secret in str(span) for span in spans)


def test_a_secret_in_an_errors_detail_stands_in_no_span() -> None:
    secret = "sk-very-secret-key"
    recorder = Recorder()
    scene = Scene(problem=Problem.of(ErrorCode.PROVIDER_AUTH, f"no {secret}"), secrets=(secret,))
    process = process_of(recorder.maker(redact=Redactor([secret]).text), scene.admitted())
    process.concluded(Problem.of(ErrorCode.PROVIDER_AUTH, f"no {secret}"))
    process.committed("failed", "provider_auth")
    assert by_name(recorder.spans, PROCESS).status_detail == "no [redacted]"
