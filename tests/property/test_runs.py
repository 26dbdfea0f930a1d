"""Whatever the agent does, limits and luck included: one result, last, and it agrees with the stream."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.scripted_options import ScriptedOptions
from agentstream.schemas.events import MessageEnded, PartDelta, RunEnded, RunRetrying, RunStarted
from agentstream.schemas.requests import StreamMode
from agentstream.schemas.results import InvokeResult
from tests.unit.playing import Played, Scene, play

SECRET = "sk-canary"
MODES: list[StreamMode] = ["full", "events", "none"]
texts = st.lists(st.sampled_from(["a ", "bb ", "sk-can", "ary ", SECRET, " ", "\n", "ü"]), max_size=12).map("".join)
tools = st.fixed_dictionaries(
    {"name": st.just("bash"), "result": texts | st.just({"k": SECRET})},
    optional={"is_error": st.booleans(), "duration_ms": st.sampled_from([0, 30, 5_000])},
)
usage = st.just({"provider": "p", "model": "m", "input_tokens": 2, "output_tokens": 1})
scripts = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "delay_ms": st.sampled_from([0, 3, 40, 4_000]),
        "tools": st.lists(tools, max_size=3),
        "usage": usage,
        "fail_attempts": st.integers(0, 3),
        "error": st.sampled_from(["provider_auth", "provider_error"]),
        "hang": st.sampled_from(["before_first", "mid_text", "in_tool", "ignore_cancel"]),
        "crash": st.just("adapter"),
        "output_bytes": st.sampled_from([0, 10, 5_000]),
        "raise": st.booleans(),
        "no_terminal": st.booleans(),
        "two_terminals": st.booleans(),
    },
)
bounds = st.fixed_dictionaries(
    {},
    optional={
        "total_ms": st.sampled_from([100, 20_000]),
        "idle_ms": st.sampled_from([10, 3_000]),
        "tool_ms": st.sampled_from([20, 3_000]),
        "max_turns": st.integers(1, 4),
        "max_output_bytes": st.sampled_from([5, 2_000]),
        "max_attempts": st.integers(1, 3),
    },
)


@settings(max_examples=300, deadline=None)
@given(scripts, bounds, st.sampled_from(MODES), st.booleans())
def test_one_result_that_agrees_with_the_stream(
    options: dict[str, object], changed: dict[str, int], mode: StreamMode, knows_secret: bool
) -> None:
    script = ScriptedOptions.model_validate(options).model_dump(mode="json", by_alias=True, exclude_unset=True)
    scene = Scene(
        options=script,
        limits=replace(DEFAULT_LIMITS, **changed),
        stream=mode,
        secrets=(SECRET,) if knows_secret else (),
    )
    played = play(scene)
    result = played.result
    assert (result.error is None) == (result.status == "completed") == bool(result.finish_reason == "stop")
    assert InvokeResult.model_validate_json(result.to_bytes()).to_bytes() == result.to_bytes(), "made without checks"
    assert_attempts_are_clean(played)
    assert_the_last_attempt_is_the_results(played, mode)
    if knows_secret:
        told = "".join(record.to_bytes().decode() for record in played.records) + result.to_bytes().decode()
        assert SECRET not in told


def assert_attempts_are_clean(played: Played) -> None:
    attempts: dict[int, list[object]] = {}
    for record in played.records:
        attempts.setdefault(record.attempt, []).extend(record.events)
    assert list(attempts) == list(range(1, played.result.attempt + 1))
    for number, events in attempts.items():
        assert [getattr(event, "seq", None) for event in events] == list(range(len(events)))
        assert isinstance(events[0], RunStarted)
        assert isinstance(events[-1], RunEnded if number == played.result.attempt else RunRetrying)
    assert played.result.last_seq == len(attempts[played.result.attempt]) - 1


def assert_the_last_attempt_is_the_results(played: Played, mode: StreamMode) -> None:
    events, result = played.last_attempt, played.result
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.status, ended.error, ended.usage) == (result.status, result.error, result.usage)
    if mode == "none":
        return
    assert [event.message for event in events if isinstance(event, MessageEnded)] == list(result.messages)
    if mode == "full" and result.status == "completed":
        assert "".join(event.delta for event in events if isinstance(event, PartDelta)) == result.text
