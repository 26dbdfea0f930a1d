"""The tree of a run's spans, for every way an attempt can end; runs of the scripted harness in virtual time."""

from dataclasses import replace

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.interrupt import Interrupt
from agentstream.schemas import span_names as names
from tests.support.spans import Recorder, by_name, process_of, tree
from tests.unit.playing import Played, Scene, play
from tests.unit.tracing import PARENT, PROCESS, TOOL, USAGE, spans_of, traced


def test_a_run_with_a_tool_is_a_tree_of_its_request_agent_turns_model_calls_and_tools() -> None:
    spans = spans_of(Scene(options={"text": "well then", "tools": [TOOL], "usage": USAGE, "delay_ms": 30}))
    assert tree(spans) == [
        PROCESS,
        "  invoke_agent scripted",
        "    turn 1",
        "      chat m",
        "      execute_tool read",
        "    turn 2",
        "      chat m",
    ]
    assert {span.trace_id for span in spans} == {PARENT.split(b"-")[1].decode()}
    process, agent, tool = (by_name(spans, name) for name in (PROCESS, "invoke_agent scripted", "execute_tool read"))
    assert (process.parent_id, process.kind) == ("00f067aa0ba902b7", "consumer")
    assert [(link.span_id, link.attributes[names.LINK]) for link in process.links] == [("00f067aa0ba902b7", "request")]
    assert {
        names.SPAN_KIND: "CHAIN",
        names.OPERATION_TYPE: "process",
        names.DESTINATION: "t",
        names.PARTITION: "5",
    }.items() <= (process.attributes.items())
    assert process.attributes[names.RUN_STATUS] == "completed"
    said = {
        names.SPAN_KIND: "AGENT",
        names.GEN_AI_OPERATION: "invoke_agent",
        names.AGENT_NAME: "scripted",
        names.PROVIDER: "p",
        names.REQUEST_MODEL: "m",
        names.SESSION_ID: "session",
        names.CONVERSATION_ID: "session",
        names.RUN_ID: "run",
        names.AGGREGATED_INPUT_TOKENS: 1_000,
        names.AGGREGATED_OUTPUT_TOKENS: 20,
        names.FINISH_REASONS: ["stop"],
    }
    assert said.items() <= agent.attributes.items()
    assert tool.end_ns - tool.start_ns == 40_000_000
    assert {names.SPAN_KIND: "TOOL", names.TOOL_NAME: "read", names.TOOL_CALL_ID: "call-1"}.items() <= (
        tool.attributes.items()
    )
    assert {span.status for span in spans} == {"unset"}
    assert all("messages" not in key and "arguments" not in key for span in spans for key in span.attributes)


def test_a_model_call_tells_its_tokens_with_cached_ones_its_models_and_its_first_chunk() -> None:
    spans = spans_of(Scene(options={"text": "one two three", "usage": USAGE, "delay_ms": 30}))
    chat = by_name(spans, "chat m")
    assert chat.kind == "client"
    said = {
        names.SPAN_KIND: "LLM",
        names.GEN_AI_OPERATION: "chat",
        names.REQUEST_MODEL: "m",
        names.RESPONSE_MODEL: "m-2026",
        names.INPUT_TOKENS: 1_000,
        names.CACHE_READ_TOKENS: 200,
        names.OUTPUT_TOKENS: 20,
        names.REASONING_TOKENS: 7,
        names.FINISH_REASONS: ["stop"],
    }
    assert said.items() <= chat.attributes.items()
    assert names.PROMPT_TOKENS not in chat.attributes
    (first,) = chat.events
    assert first.name == names.FIRST_CHUNK
    assert chat.attributes[names.TIME_TO_FIRST_CHUNK] == (first.time_ns - chat.start_ns) / 1e9
    assert chat.end_ns - chat.start_ns == 60_000_000, "three words, two pauses"


@pytest.mark.parametrize("options", [{}, {"fail_attempts": 1}])
def test_what_all_spans_say_of_their_usage_adds_up_to_what_was_used(options: dict[str, JsonValue]) -> None:
    # Langfuse and Agenta add up every span's: with the agent's among them a trace had used twice what it had.
    spans = spans_of(Scene(options={"text": "a", "tools": [TOOL], "usage": USAGE, **options}), older_token_names=True)
    told = [span for span in spans if any(key.startswith(names.USAGE) for key in span.attributes)]
    assert {span.name for span in told} == {"chat m"}
    agents = [span for span in spans if span.name == "invoke_agent scripted"]
    for name in ("input_tokens", "output_tokens", "cache_read.input_tokens", "reasoning.output_tokens"):
        calls = sum(int(str(span.attributes.get(names.USAGE + name, 0))) for span in told)
        assert calls == sum(int(str(span.attributes.get(names.AGGREGATED_USAGE + name, 0))) for span in agents) > 0


def test_older_and_other_names_are_written_only_where_they_are_asked_for() -> None:
    spans = spans_of(Scene(options={"text": "a", "usage": USAGE}), older_token_names=True, openinference=True)
    chat, agent = by_name(spans, "chat m").attributes, by_name(spans, "invoke_agent scripted").attributes
    assert (chat[names.PROMPT_TOKENS], chat[names.COMPLETION_TOKENS]) == (1_000, 20)
    assert (chat[names.LLM_MODEL], chat[names.LLM_TOTAL_TOKENS]) == ("m-2026", 1_020)
    assert names.LLM_TOTAL_TOKENS not in agent, "who adds them up would count them twice"


def test_a_tool_that_failed_is_an_error_and_its_run_is_not() -> None:
    spans = spans_of(Scene(options={"text": "well", "tools": [{**TOOL, "is_error": True}]}))
    assert tree(spans)[4] == "      execute_tool read !tool_error"
    assert [line for line in tree(spans) if "!" in line] == ["      execute_tool read !tool_error"]


def test_a_tool_whose_end_never_came_is_closed_with_what_ended_it() -> None:
    limits = replace(DEFAULT_LIMITS, tool_ms=5_000, max_attempts=1)
    spans = spans_of(Scene(options={"tools": [TOOL], "hang": "in_tool"}, limits=limits))
    assert tree(spans) == [
        f"{PROCESS} !tool_timeout",
        "  invoke_agent scripted !tool_timeout",
        "    turn 1 !tool_timeout",
        "      chat m",
        "      execute_tool read !tool_timeout",
    ]
    tool = by_name(spans, "execute_tool read")
    assert tool.end_ns - tool.start_ns == 5_000_000_000
    assert "5000 ms" in tool.status_detail


def test_a_turn_cut_by_a_timeout_is_closed_with_it() -> None:
    limits = replace(DEFAULT_LIMITS, idle_ms=2_000, max_attempts=1)
    spans = spans_of(Scene(options={"text": "one two", "hang": "mid_text"}, limits=limits))
    assert tree(spans) == [
        f"{PROCESS} !idle_timeout",
        "  invoke_agent scripted !idle_timeout",
        "    turn 1 !idle_timeout",
        "      chat m !idle_timeout",
    ]


def test_a_cancelled_run_says_so_on_all_that_was_open() -> None:
    recorder = Recorder()
    scene = Scene(options={"text": "one two", "hang": "mid_text"})
    process = process_of(recorder.maker(), scene.admitted())

    def cancel(played: Played, interrupt: Interrupt) -> None:
        if "part.delta" in played.types:
            interrupt.cancel("not needed")

    played = play(replace(scene, process=process), on_record=cancel)
    process.concluded(played.result.error)
    process.committed(played.result.status, played.code)
    assert tree(recorder.spans) == [
        f"{PROCESS} !cancelled",
        "  invoke_agent scripted !cancelled",
        "    turn 1 !cancelled",
        "      chat m !cancelled",
    ]
    assert by_name(recorder.spans, PROCESS).attributes[names.RUN_STATUS] == "cancelled"


def test_a_retry_is_linked_to_the_attempt_before_which_is_closed_with_its_error() -> None:
    recorder = Recorder()
    traced(Scene(options={"text": "hi", "fail_attempts": 1}), recorder)
    assert tree(recorder.spans) == [
        PROCESS,
        "  invoke_agent scripted !provider_error",
        "    turn 1 !provider_error",
        "      chat m !provider_error",
        "  invoke_agent scripted",
        "    turn 1",
        "      chat m",
    ]
    first, second = sorted((s for s in recorder.spans if s.name.startswith("invoke")), key=lambda s: s.start_ns)
    assert [(link.span_id, link.attributes[names.LINK]) for link in second.links] == [
        (first.span_id, "retried_attempt")
    ]
    assert (first.links, first.attributes[names.ATTEMPT], second.attributes[names.ATTEMPT]) == ((), 1, 2)
    assert recorder.flushed == 1


@pytest.mark.parametrize("options", [{"crash": "adapter"}, {"raise": True}, {"no_terminal": True}])
def test_a_harness_that_crashed_leaves_no_span_open(options: dict[str, JsonValue]) -> None:
    limits = replace(DEFAULT_LIMITS, max_attempts=1)
    spans = spans_of(Scene(options={"text": "one two", **options}, limits=limits))
    assert tree(spans)[:2] == [f"{PROCESS} !harness_crashed", "  invoke_agent scripted !harness_crashed"]


def test_an_attempt_whose_partition_is_lost_is_closed_with_that() -> None:
    recorder = Recorder()
    scene = Scene(options={"text": "one two", "hang": "mid_text"})
    process = process_of(recorder.maker(), scene.admitted())

    class Lost(Exception):
        pass

    def lose(played: Played, _: Interrupt) -> None:
        if "part.delta" in played.types:
            raise Lost

    with pytest.raises(Lost):
        play(replace(scene, process=process), on_record=lose)
    process.abandoned(names.PARTITION_LOST, began=True)
    assert tree(recorder.spans) == [
        f"{PROCESS} !partition_lost",
        "  invoke_agent scripted !partition_lost",
        "    turn 1 !partition_lost",
        "      chat m !partition_lost",
    ]
