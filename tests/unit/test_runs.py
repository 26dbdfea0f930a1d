"""An admitted request becomes numbered events and exactly one result, whatever the agent does."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.port import RunLimits
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import PartDelta, RunEnded, RunRetrying, RunStarted
from agentstream.schemas.messages import Usage
from agentstream.schemas.requests import StreamMode
from tests.unit.playing import TRACE, Played, Scene, play
from tests.virtual_time import START

USAGE: dict[str, JsonValue] = {"provider": "p", "model": "m", "input_tokens": 3, "output_tokens": 2}
TOOLS: list[JsonValue] = [{"name": "bash", "arguments": {"command": "ls"}, "result": "README", "duration_ms": 40}]


def limits(max_attempts: int) -> RunLimits:
    return replace(DEFAULT_LIMITS, max_attempts=max_attempts)


def is_one_clean_stream(played: Played) -> bool:
    """Each attempt's `seq` from 0 without gaps, attempts in order, and the result names the last."""
    by_attempt: dict[str, list[int]] = {}
    for record in played.records:
        by_attempt.setdefault(record.attempt_id, []).extend(event.seq for event in record.events)
    numbers = [record.attempt for record in played.records]
    return (
        all(seqs == list(range(len(seqs))) for seqs in by_attempt.values())
        and numbers == sorted(numbers)
        and (not played.results or played.result.last_seq == len(by_attempt.get(played.records[-1].attempt_id, [])) - 1)
    )


def test_a_plain_run_streams_its_text_and_ends_with_one_result() -> None:
    played = play(Scene(options={"text": "Hello big world", "delay_ms": 10, "usage": USAGE}))
    assert played.types[:4] == ["run.started", "turn.started", "message.started", "part.started"]
    assert played.types[-4:] == ["part.ended", "message.ended", "turn.ended", "run.ended"]
    assert "".join(e.delta for e in played.events if isinstance(e, PartDelta)) == "Hello big world"
    assert is_one_clean_stream(played)
    result = played.result
    assert (result.status, result.text, result.finish_reason, result.error) == (
        "completed",
        "Hello big world",
        "stop",
        None,
    )
    assert result.usage == (Usage.model_validate(USAGE),)
    assert result.cost is None


def test_the_result_says_all_that_is_known_about_the_run() -> None:
    played = play(Scene(crashes=2, attempt=4))
    result, started = played.result, played.events[0]
    assert isinstance(started, RunStarted)
    assert (started.model, started.harness) == ("p/m", "scripted")
    assert (result.run_id, result.session_id, result.partition) == ("run", "session", 5)
    assert (result.claim, result.attempt, result.crashes) == (3, 4, 2)
    assert result.attempt_id == played.records[0].attempt_id
    assert result.harness is not None
    assert (result.harness.kind, result.harness.versions) == ("scripted", {"scripted": "1"})
    assert (result.metadata, result.trace_id, result.requested_at) == ({"k": "v"}, TRACE.trace_id, START)
    assert result.started_at == result.ended_at == START
    assert result.parameters.harness is not None
    assert result.parameters.limits is not None
    assert result.parameters.limits.max_turns == DEFAULT_LIMITS.max_turns


def test_an_agent_without_a_script_echoes() -> None:
    assert play(Scene(text="ping")).result.text == "You said: ping"


def test_tools_leave_their_messages_in_order() -> None:
    played = play(Scene(options={"text": "done", "tools": TOOLS * 2}))
    assert [message.role for message in played.result.messages] == [
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [kind for kind in played.types if kind.startswith("tool.")] == ["tool.started", "tool.ended"] * 2
    assert played.ended == pytest.approx(0.08)


def test_a_run_is_the_same_when_played_again() -> None:
    scene = Scene(options={"text": "a b c d e", "delay_ms": 7, "tools": TOOLS, "usage": USAGE})
    ids = {"attempt_id": "", "messages": ()}
    assert play(scene).result.model_copy(update=ids) == play(scene).result.model_copy(update=ids)
    assert play(scene).times == play(scene).times


def test_the_first_token_does_not_wait_for_the_second() -> None:
    played = play(Scene(options={"text": "a b", "delay_ms": 5_000}))
    first = next(i for i, record in enumerate(played.records) if record.events[-1].type == "part.delta")
    assert played.times[first] == 0.0


def test_fast_tokens_are_gathered_in_few_records() -> None:
    played = play(Scene(options={"text": "tok " * 200, "delay_ms": 1}))
    assert played.result.text == "tok " * 200
    # 199 ms of tokens at 25 ms a record, and a few for the beginning and the end.
    assert len(played.records) < 15
    gaps = [late - early for early, late in pairwise(played.times)]
    assert max(gaps) <= 0.0265


@pytest.mark.parametrize("mode", ["events", "none"])
def test_a_stream_mode_changes_events_but_not_the_result(mode: StreamMode) -> None:
    scene = Scene(options={"text": "a b c", "tools": TOOLS})
    full, less = play(scene), play(replace(scene, stream=mode))
    assert less.result.text == full.result.text
    assert is_one_clean_stream(less)
    assert "part.delta" not in less.types
    assert (less.types == ["run.started", "run.ended"]) is (mode == "none")


# Failure, and trying again.


def test_a_failing_attempt_is_voided_and_another_follows() -> None:
    played = play(Scene(options={"fail_attempts": 2, "text": "third time"}))
    assert played.result.attempt == 3
    assert (played.result.status, played.result.text) == ("completed", "third time")
    retrying = [event for event in played.events if isinstance(event, RunRetrying)]
    assert [(e.reason, e.error and e.error.code) for e in retrying] == [("error", "provider_error")] * 2
    assert played.ended == pytest.approx(sum(e.delay_ms for e in retrying) / 1000)
    assert len({record.attempt_id for record in played.records}) == 3
    assert is_one_clean_stream(played)
    assert played.last_attempt[0].type == "run.started"


def test_attempts_used_up_end_as_one_failed_result() -> None:
    played = play(Scene(options={"fail_attempts": 9}, limits=limits(2)))
    assert (played.result.status, played.code, played.result.attempt) == ("failed", "provider_error", 2)
    assert played.result.finish_reason == "error"
    assert played.types.count("run.retrying") == 1
    ended = played.events[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.status, ended.error) == ("failed", played.result.error)


def test_a_fatal_error_is_not_tried_again_and_keeps_what_was_said_before() -> None:
    played = play(Scene(options={"text": "one two", "tools": TOOLS, "error": "provider_auth"}))
    assert (played.code, played.result.attempt) == ("provider_auth", 1)
    assert [message.role for message in played.result.messages] == ["assistant", "tool"]
    assert played.result.error is not None
    assert not played.result.error.retriable


def test_usage_counts_all_attempts_since_all_are_billed() -> None:
    play_once = play(Scene(options={"usage": USAGE, "no_terminal": True}, limits=limits(3)))
    assert play_once.result.attempt == 3
    assert play_once.result.usage[0].input_tokens == 9


def test_a_run_that_says_nothing_is_no_output() -> None:
    played = play(Scene(options={"text": " "}))
    assert (played.result.status, played.code) == ("failed", "no_output")


def test_a_crash_of_the_adapter_is_tried_again_and_then_fails() -> None:
    played = play(Scene(options={"crash": "adapter"}, limits=limits(2)))
    assert (played.code, played.result.attempt) == ("harness_crashed", 2)


def test_a_run_that_crashes_its_harness_three_times_is_given_up() -> None:
    """Tried again for as long as `max_attempts` allows, it would take the harness's other runs with it each time."""
    played = play(Scene(options={"crash": "adapter"}, limits=limits(10)))
    assert (played.code, played.result.attempt) == ("crash_limit", 3)


def test_crashes_of_workers_and_of_the_harness_are_counted_together() -> None:
    played = play(Scene(options={"crash": "adapter"}, limits=limits(10), crashes=2))
    assert (played.code, played.result.attempt) == ("crash_limit", 1)


def test_a_run_that_was_lost_with_three_workers_does_not_start() -> None:
    played = play(Scene(crashes=3))
    assert (played.code, played.result.attempt, played.result.crashes, played.records) == ("crash_limit", 0, 3, [])


# What never starts.


@pytest.mark.parametrize(
    ("late", "status"), [(timedelta(seconds=1.9), "completed"), (timedelta(seconds=2.1), "failed")]
)
def test_a_deadline_that_has_passed_ends_the_run_before_it_starts(late: timedelta, status: str) -> None:
    played = play(Scene(deadline=START - late))
    assert played.result.status == status
    if status == "failed":
        assert played.code == "deadline_exceeded"
        assert played.records == []
        assert (played.result.attempt, played.result.attempt_id, played.result.last_seq) == (0, None, -1)
        assert (played.result.started_at, played.result.harness) == (None, None)


def test_a_ttl_counts_from_the_records_timestamp() -> None:
    stamp = int(START.timestamp() * 1000)
    assert play(Scene(ttl_ms=1_000, timestamp_ms=stamp - 2_900)).result.status == "completed"
    assert play(Scene(ttl_ms=1_000, timestamp_ms=stamp - 3_100)).code == "deadline_exceeded"


@pytest.mark.parametrize("stamp", [-1, 10**17])
def test_a_timestamp_that_no_calendar_holds_is_left_out(stamp: int) -> None:
    played = play(Scene(ttl_ms=1, timestamp_ms=stamp))
    assert (played.result.status, played.result.requested_at) == ("completed", None)


def test_what_admission_found_missing_is_a_failed_result() -> None:
    played = play(Scene(problem=Problem.of(ErrorCode.PROVIDER_AUTH, "no credentials named `x`")))
    assert (played.code, played.records, played.result.attempt) == ("provider_auth", [], 0)
    assert played.result.error is not None
    assert played.result.error.detail == "no credentials named `x`"


# Secrets.


@pytest.mark.parametrize("mode", ["full", "events", "none"])
def test_a_secret_that_the_agent_says_leaves_nowhere(mode: StreamMode) -> None:
    secret = "sk-canary-123456"
    tools: JsonValue = [{"name": "bash", "arguments": {"env": secret}, "result": {"out": secret}}]
    scene = Scene(options={"text": f"it is {secret}", "tools": tools}, stream=mode, secrets=(secret,))
    played = play(scene)
    told = [record.to_bytes().decode() for record in played.records] + [played.result.to_bytes().decode()]
    assert not any("canary" in text for text in told)
    assert played.result.text == "it is [redacted]"


def test_a_result_that_cannot_be_redacted_leaves_without_what_it_said() -> None:
    """A caller who knows the key asked for a tool of that name. Raising here ended the worker, and the next one."""
    secret = "sk-canary-123456"
    played = play(Scene(options={"text": "hello"}, tools=(secret,), secrets=(secret,)))
    assert played.code == "internal"
    assert "canary" not in played.result.to_bytes().decode()
