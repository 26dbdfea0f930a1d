"""Recorded runs of the scripted harness, played again in this process."""

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.consumers.replay.playing import Budget, ReplayTerms
from agentstream.consumers.replay.playing.conversations import RelivedSession
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters, HarnessChoice
from tests.support.replays import Case, record_scripted, replay, scripted

FROZEN = ReplayTerms(mode="frozen")
READ: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a", "n": 1}, "result": "A"}
LIST: dict[str, JsonValue] = {"name": "ls", "arguments": {}, "result": ["x"]}


def changed(run: RecordedRun, parameters: dict[str, object]) -> RecordedRun:
    """The recording of a run that was asked for with other parameters than these."""
    asked = run.request.model_copy(update={"parameters": AgentParameters.model_validate(parameters)})
    return run.model_copy(update={"request": asked})


async def test_what_nothing_changed_of_goes_as_recorded(tmp_path: Path) -> None:
    runs = await record_scripted(
        *(Case(session=f"s{n % 3}", turn=n // 3, parameters=scripted(f"text {n}", READ, LIST)) for n in range(12)),
        Case(session="failed", parameters=scripted("no", READ, error="provider_auth")),
        Case(session="retried", parameters=scripted("yes", fail_attempts=1)),
        Case(session="turns", parameters={**scripted("no", READ, LIST), "limits": {"max_turns": 2}}),
    )
    outcome = await replay(tmp_path, runs)
    assert [run.divergence for run in outcome.runs.values()] == [None] * len(runs)
    assert outcome.tally.complete
    assert outcome.tally.codes == {"provider_auth": 1, "max_turns": 1}
    for run in runs:
        assert run.result is not None
        assert outcome[run.run_id].result.messages == run.result.messages
        assert outcome[run.run_id].result.run_id == f"replay-t1:0:{run.run_id}"
        assert outcome[run.run_id].result.session_id == f"replay-t1:0:{run.session_id}"


@pytest.mark.parametrize(
    ("now", "index", "what"),
    [
        (scripted("one", {**READ, "arguments": {"path": "b", "n": 1}}, LIST), 0, "read is called with arguments"),
        (scripted("one", {**READ, "name": "ls", "arguments": {}}, LIST), 0, "another tool call: ls, recorded is read"),
        (scripted("one", READ), 2, "0 tool calls, recorded are 1"),
        (scripted("one", READ, LIST, LIST), 4, "1 tool calls, recorded are 0"),
        (scripted("two", READ, LIST), 4, "another text"),
        (scripted("one", READ, LIST, error="provider_auth"), 4, "it ended too early, with provider_auth"),
    ],
)
async def test_the_first_step_that_differs_is_told(
    tmp_path: Path, now: dict[str, object], index: int, what: str
) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one", READ, LIST)))
    outcome = await replay(tmp_path, [changed(run, now)])
    divergence = outcome["r0"].divergence
    assert divergence is not None
    expected = what if index or "another tool" in what else "other arguments of read"
    assert (divergence.index, divergence.what) == (index, expected)
    assert divergence.recorded != divergence.replayed
    error = outcome["r0"].result.error
    assert error is not None
    assert (error.code, error.retriable, error.detail) == (ErrorCode.REPLAY_DIVERGED, False, divergence.what)


async def test_the_recording_answers_in_place_of_a_tool_that_would_answer_something_else(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one", READ)))
    for mode in ("frozen", "hybrid"):
        terms = ReplayTerms.model_validate({"mode": mode})
        outcome = await replay(tmp_path / mode, [changed(run, scripted("one", {**READ, "result": "B"}))], terms)
        assert outcome["r0"].divergence is None
        assert "'A'" in str(outcome["r0"].result.messages)
        assert (outcome["r0"].tools_from_recording, outcome["r0"].tools_real) == (1, 0)


async def test_a_call_of_a_tool_that_the_run_does_not_have_is_no_tool_that_ran(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one", READ)))
    for number, tools in enumerate(((), ("read",))):
        parameters = run.request.parameters.model_copy(update={"tools": tools})
        without = run.model_copy(update={"request": run.request.model_copy(update={"parameters": parameters})})
        outcome = await replay(tmp_path / str(number), [without], ReplayTerms(mode="live"))
        assert outcome["r0"].tools_real == number


async def test_numbers_are_the_same_as_javascript_sees_them(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one", READ)))
    same: dict[str, JsonValue] = {**READ, "arguments": {"n": 1.0, "path": "a"}}
    assert (await replay(tmp_path, [changed(run, scripted("one", same))]))["r0"].divergence is None


async def test_a_hybrid_run_takes_each_recorded_answer_once(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one", READ)))
    twice = changed(run, scripted("two", READ, READ))
    outcome = await replay(tmp_path / "stop", [twice], ReplayTerms(mode="hybrid"))
    divergence = outcome["r0"].divergence
    assert divergence is not None
    assert divergence.what == "read is called a 2nd time with the same arguments, the recording has 1"
    named = ReplayTerms(mode="hybrid", on_miss="real", real_tools=("read",))
    outcome = await replay(tmp_path / "real", [twice], named)
    assert (outcome["r0"].result.text, outcome["r0"].tools_from_recording, outcome["r0"].tools_real) == ("two", 1, 1)
    another = ReplayTerms(mode="hybrid", on_miss="real", real_tools=("write",))
    outcome = await replay(tmp_path / "another", [twice], another)
    assert outcome["r0"].divergence is not None
    assert outcome["r0"].tools_real == 0


async def test_what_cannot_be_played_frozen_is_said_and_not_guessed(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one")))
    outcome = await replay(tmp_path, [run.model_copy(update={"result": None, "gaps": ("no_result",)})])
    error = outcome["r0"].result.error
    assert error is not None
    assert (error.code, error.detail) == (ErrorCode.UNSUPPORTED, "the recording has no result of this run")
    assert outcome["r0"].divergence is None


async def test_changes_go_over_what_took_effect_then(tmp_path: Path) -> None:
    (run,) = await record_scripted(
        Case(parameters={**scripted("one"), "limits": {"max_turns": 7, "total_ms": 5_000}, "agents_md": "Old."})
    )
    bare = run.model_copy(update={"request": run.request.model_copy(update={"parameters": AgentParameters()})})
    changes = AgentParameters.model_validate({"limits": {"max_turns": 3}, "model": "a/b"})
    outcome = await replay(tmp_path, [bare], ReplayTerms(mode="live", changes=changes))
    took = outcome["r0"].result.parameters
    assert outcome["r0"].result.text == "one"
    assert took.limits is not None
    assert (took.model, took.limits.max_turns, took.limits.total_ms, took.agents_md) == ("a/b", 3, 5_000, "Old.")


async def test_options_of_another_harness_do_not_travel(tmp_path: Path) -> None:
    (run,) = await record_scripted(Case(parameters=scripted("one")))
    elsewhere = changed(run, {"harness": {"kind": "pi", "options": {"colour": "blue"}}})
    changes = AgentParameters(harness=HarnessChoice(kind="scripted"))
    outcome = await replay(tmp_path, [elsewhere], ReplayTerms(mode="live", changes=changes))
    assert outcome["r0"].result.status == "completed"


async def test_turns_of_a_session_are_played_in_order_and_sessions_side_by_side(tmp_path: Path) -> None:
    runs = await record_scripted(
        *(Case(session=f"s{n % 2}", turn=n // 2, parameters=scripted("x y", delay_ms=40 - 4 * n)) for n in range(10))
    )
    outcome = await replay(tmp_path, runs, FROZEN, Budget(concurrency=8))
    # Later turns are quicker: only waiting for the turn before keeps them behind it.
    for session in ("02468", "13579"):
        assert [run_id[1:] for run_id in outcome.order if run_id[1:] in session] == list(session)
    assert outcome.order != tuple(sorted(outcome.order)), "sessions do not wait for each other"


async def test_each_repeat_has_a_session_of_its_own(tmp_path: Path) -> None:
    runs = await record_scripted(Case(), Case(turn=1))
    outcome = await replay(tmp_path, runs, ReplayTerms(mode="live", repeats=3, changes=_echo()))
    assert sorted(outcome.runs) == [(run, repeat) for run in ("r0", "r1") for repeat in range(3)]
    assert len({run.result.session_id for run in outcome.runs.values()}) == 3


def _echo() -> AgentParameters:
    return AgentParameters(harness=HarnessChoice(kind="scripted"))


async def _conversation(*, text_only: bool = False, foreign: bool = False) -> list[RecordedRun]:
    """Two turns: the second has the first one's history."""
    first = (await record_scripted(Case(text="one?", parameters=scripted("ONE", READ))))[0]
    assert first.result is not None
    answers = (Message.of_text("assistant", "ONE"),) if text_only else first.result.messages
    said = "another question" if foreign else "one?"
    history = (Message.of_text("user", said), *answers)
    second = (await record_scripted(Case(text="two?", parameters=scripted("TWO"), turn=1, history=history)))[0]
    return [first, second.model_copy(update={"run_id": "r1"})]


@pytest.mark.parametrize("text_only", [True, False])
async def test_a_relived_turn_is_asked_with_what_the_replay_answered(tmp_path: Path, text_only: bool) -> None:
    runs = await _conversation(text_only=text_only)
    terms = ReplayTerms(mode="live", history="relived", changes=AgentParameters.model_validate(scripted("NEW")))
    outcome = await replay(tmp_path, [runs[0]], terms)
    assert [run.conversation for run in outcome.runs.values()] == ["recorded"]
    # Gone on with after an interruption: the answer of then is the history of now.
    outcome = await replay(tmp_path, runs, terms)
    assert outcome["r1"].conversation == "relived"


@pytest.mark.parametrize("text_only", [True, False])
async def test_the_relived_history_has_the_same_shape_as_the_recorded_one(text_only: bool) -> None:
    first, second = await _conversation(text_only=text_only)
    (other,) = await record_scripted(Case(text="one?", parameters=scripted("NEW", LIST, READ)))
    assert other.result is not None
    session = RelivedSession()
    session.answered(first, session.asked(first), other.result)
    asked = session.asked(second)
    said = (Message.of_text("assistant", "NEW"),) if text_only else other.result.messages
    assert asked.conversation == "relived"
    assert asked.messages == (Message.of_text("user", "one?"), *said, Message.of_text("user", "two?"))


@pytest.mark.parametrize("why", ["foreign", "failed", "gap"])
async def test_a_turn_that_does_not_fit_is_asked_with_the_recorded_history_and_marked(tmp_path: Path, why: str) -> None:
    runs = await _conversation(foreign=why == "foreign")
    if why == "gap":
        runs[1] = runs[1].model_copy(update={"turn": 2})
    options = scripted("NEW", error="no_output") if why == "failed" else scripted("NEW")
    terms = ReplayTerms(mode="live", history="relived", changes=AgentParameters.model_validate(options))
    outcome = await replay(tmp_path, runs, terms)
    assert (outcome["r1"].conversation, outcome.tally.broken) == ("broken", 1)


async def test_a_budget_ends_a_replay_that_can_go_on_with_a_larger_one(tmp_path: Path) -> None:
    usage: JsonValue = {"provider": "p", "model": "m", "input_tokens": 90, "output_tokens": 10}
    runs = await record_scripted(*(Case(session=f"s{n}", parameters=scripted("x", usage=usage)) for n in range(20)))
    first = await replay(tmp_path, runs, FROZEN, Budget(concurrency=2, max_runs=5))
    assert (first.tally.finished, first.tally.exhausted, first.tally.complete) == (5, "5 runs", False)
    second = await replay(tmp_path, runs, FROZEN, Budget(concurrency=1, max_tokens=1_000))
    assert (second.tally.finished, second.tally.exhausted) == (10, "1,000 tokens")
    assert second.tally.unknown_costs == 10, "what a run cost is not known, and not made up"
    third = await replay(tmp_path, runs, FROZEN, Budget(max_cost=Decimal(1)))
    assert (third.tally.finished, third.tally.earlier, third.tally.complete) == (20, 10, True)
