"""Recorded runs of the real Pi, played again: frozen without a model, hybrid without its tools."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.port import HarnessEvent, HarnessRequest, Terminal, Waiting
from agentstream.consumers.replay.playing import (
    ReplayTerms,
)
from agentstream.consumers.replay.playing.playback import MISSED
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import MessageEnded
from agentstream.schemas.messages import Message, ToolCallResponsePart
from agentstream.schemas.recordings import ReplayedRun
from agentstream.schemas.requests import AgentParameters
from tests.integration.replay_fixtures import PiStage, with_tools
from tests.support.replays import Case

FEW = 6


FROZEN = ReplayTerms(mode="frozen")


async def played_frozen(stage: PiStage, number: int) -> None:
    runs = await stage.record(*(with_tools(each) for each in range(number)))
    assert all(run.result and run.result.text.startswith("It is") for run in runs)
    asked = len(stage.model.calls)
    outcome = await stage.replay(runs, FROZEN)
    assert [run.divergence for run in outcome.runs.values() if run.divergence] == []
    assert outcome.tally.completed == number
    assert len(stage.model.calls) == asked, "no model was called"
    assert (outcome.tally.tools_from_recording, outcome.tally.tools_real) == (3 * number, 0)
    for run in runs:
        assert run.result is not None
        again = outcome[run.run_id].result
        assert again.messages == run.result.messages
        assert again.usage == run.result.usage


async def test_frozen_runs_of_pi_go_as_recorded_without_model_and_tools(stage: PiStage) -> None:
    await played_frozen(stage, FEW)


@pytest.mark.slow
async def test_two_hundred_frozen_runs_of_pi_go_as_recorded(stage: PiStage) -> None:
    await played_frozen(stage, 200)


async def test_instructions_may_change_in_a_frozen_replay(stage: PiStage) -> None:
    runs = await stage.record(with_tools(1))
    outcome = await stage.replay(runs, FROZEN.model_copy(update={"changes": AgentParameters(agents_md="Be brief.")}))
    assert outcome["r0"].result.parameters.agents_md == "Be brief."
    assert outcome["r0"].divergence is None


async def test_a_tool_that_is_taken_away_is_the_first_divergence(stage: PiStage) -> None:
    runs = await stage.record(with_tools(1))
    outcome = await stage.replay(runs, FROZEN.model_copy(update={"changes": AgentParameters(tools=("bash",))}))
    divergence = outcome["r0"].divergence
    assert divergence is not None
    # Before it: the first answer, what bash said, the answer with two calls.
    assert (divergence.index, divergence.what) == (3, "another result of read")
    assert outcome["r0"].result.error is not None
    assert outcome["r0"].result.error.code == ErrorCode.REPLAY_DIVERGED
    assert outcome["r0"].result.attempt == 1, "it is not tried again"


class Mending:
    """Pi as a version that "mends" the arguments of one call."""

    def __init__(self, inner: PiHarness, wrong: str) -> None:
        self._inner = inner
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        async for event in self._inner.run(request):
            if isinstance(event, MessageEnded) and event.message and self._wrong in event.message.model_dump_json():
                mended = event.message.model_dump_json().replace(self._wrong, "echo 33 |")
                yield event.model_copy(update={"message": Message.model_validate_json(mended)})
            else:
                yield event


async def test_one_changed_tool_call_among_all_runs_is_found(stage: PiStage) -> None:
    runs = await stage.record(*(with_tools(number) for number in range(FEW)))
    outcome = await stage.replay(runs, FROZEN, pi=Mending(stage.pi, "echo 3 |"))
    diverged = {run.run_id: run.divergence for run in outcome.runs.values() if run.divergence is not None}
    assert list(diverged) == ["r3"]
    assert (diverged["r3"].index, diverged["r3"].what) == (0, "other arguments of bash")
    assert outcome.tally.completed == FEW - 1


async def test_with_other_instructions_exactly_the_answers_differ_that_depend_on_them(stage: PiStage) -> None:
    asked = ("[[say: One.]]", "hello", "What is your name?", "count to 3", '[[tool:bash {"command": "echo 1"}]]', "hi")
    parameters = {"tools": ["bash"], "agents_md": "Your name is Ada."}
    runs = await stage.record(*(Case(text=each, session=each, parameters=parameters) for each in asked))
    changes = AgentParameters(agents_md="Your name is Eve.")
    outcome = await stage.replay(runs, ReplayTerms(mode="hybrid", changes=changes))
    before = {run.run_id: run.result.text for run in runs if run.result}
    after = {run_id: run.result.text for (run_id, _), run in outcome.runs.items()}
    assert {run_id for run_id, text in after.items() if text != before[run_id]} == {"r2"}
    assert (before["r2"][:15], after["r2"][:15]) == ("My name is Ada.", "My name is Eve.")
    assert (outcome.tally.completed, outcome.tally.tools_real) == (len(asked), 0)


def leaving(path: Path) -> str:
    return f"[[tool:bash {json.dumps({'command': f'touch {path}; echo left'})}]][[say: Done.]]"


async def hybrid(stage: PiStage, terms: ReplayTerms, *, asked: str) -> tuple[ReplayedRun, Path]:
    """A recorded run left a file; asked this, the model calls the same tool, or another that leaves another file."""
    file, other = stage.directory / "left", stage.directory / "other"
    (run,) = await stage.record(Case(text=leaving(file), parameters={"tools": ["bash"]}))
    file.unlink()
    message = Message.of_text("user", leaving(file if asked == "same" else other))
    changed = run.model_copy(update={"request": run.request.model_copy(update={"messages": (message,)})})
    outcome = await stage.replay([changed], terms)
    assert not file.exists()
    return outcome["r0"], other


async def test_in_a_hybrid_replay_the_model_is_real_and_a_recorded_call_leaves_nothing(stage: PiStage) -> None:
    run, _ = await hybrid(stage, ReplayTerms(mode="hybrid"), asked="same")
    assert (run.result.text, run.divergence, run.tools_from_recording, run.tools_real) == ("Done.", None, 1, 0)
    assert len(stage.model.calls) == 4


async def test_a_call_that_was_not_recorded_stops_a_hybrid_run_before_the_tool_does_anything(stage: PiStage) -> None:
    run, other = await hybrid(stage, ReplayTerms(mode="hybrid"), asked="other")
    assert not other.exists()
    assert run.divergence is not None
    assert run.divergence.what == "bash is called with arguments that the recording has no answer to"
    assert run.result.error is not None
    assert run.result.error.code == ErrorCode.REPLAY_DIVERGED
    assert len(stage.model.calls) == 3, "the model is not asked again"


async def test_a_call_that_was_not_recorded_can_be_an_error_to_the_model(stage: PiStage) -> None:
    run, other = await hybrid(stage, ReplayTerms(mode="hybrid", on_miss="error"), asked="other")
    assert not other.exists()
    assert (run.result.text, run.divergence, run.tools_real) == ("Done.", None, 0)
    (answer,) = [part for message in run.result.messages if message.role == "tool" for part in message.parts]
    assert isinstance(answer, ToolCallResponsePart)
    assert (answer.response, answer.is_error) == (MISSED, True)


async def test_only_a_tool_that_is_named_really_runs(stage: PiStage) -> None:
    named = ReplayTerms(mode="hybrid", on_miss="real", real_tools=("bash",))
    run, other = await hybrid(stage, named, asked="other")
    assert other.exists()
    assert (run.result.text, run.tools_real) == ("Done.", 1)


async def test_a_tool_that_is_not_named_does_not_run(stage: PiStage) -> None:
    run, other = await hybrid(stage, ReplayTerms(mode="hybrid", on_miss="real", real_tools=("read",)), asked="other")
    assert not other.exists()
    assert run.divergence is not None
