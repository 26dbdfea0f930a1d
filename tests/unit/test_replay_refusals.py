"""Runs that fail before a model is asked: as all of them would, or as only these do; and tools that would act."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.playing import (
    Budget,
    InProcess,
    Playbacks,
    Player,
    ReplayDirectory,
    ReplayHarness,
    ReplayTerms,
)
from agentstream.consumers.replay.playing.budget import COST_UNKNOWN
from agentstream.consumers.runs import Runs
from agentstream.schemas.recordings import RecordedRun, ReplayMode
from tests.support.replays import Case, Replayed, manifest, record_scripted, replay, replayed, scripted

LIVE = ReplayTerms(mode="live")
ONE_AT_A_TIME = Budget(concurrency=1)


async def _recorded(*errors: str | None) -> list[RecordedRun]:
    """Runs that end so, recorded and replayed live."""
    cases = [Case(session=f"s{n}", parameters=scripted("x", error=error)) for n, error in enumerate(errors)]
    return await record_scripted(*cases)


@pytest.mark.parametrize("code", ["provider_auth", "model_unavailable", "provider_error"])
async def test_where_the_first_runs_are_all_refused_it_stops_and_keeps_none(tmp_path: Path, code: str) -> None:
    refused = await _recorded(*[code] * 9)
    outcome = await replay(tmp_path, refused, LIVE, ONE_AT_A_TIME)
    assert (outcome.tally.complete, outcome.tally.refused, outcome.runs) == (False, True, {})
    assert str(outcome.tally.exhausted).startswith(f"the first 5 runs, which all failed ({code}")
    mended = await _recorded(*[None] * 9)
    outcome = await replay(tmp_path, mended, LIVE, ONE_AT_A_TIME)
    assert (outcome.tally.completed, outcome.tally.complete) == (9, True)


async def test_all_of_a_few_runs_refused_is_no_complete_replay_either(tmp_path: Path) -> None:
    outcome = await replay(tmp_path, await _recorded("provider_auth", "provider_auth"), LIVE)
    assert (outcome.tally.complete, outcome.runs) == (False, {})


async def test_refused_runs_among_others_are_outcomes(tmp_path: Path) -> None:
    few = await _recorded(*["provider_auth"] * 4, None, *["provider_auth"] * 9)
    outcome = await replay(tmp_path, few, LIVE, ONE_AT_A_TIME)
    assert (outcome.tally.finished, outcome.tally.complete) == (14, True)
    assert outcome.order == tuple(f"r{n}" for n in range(14)), "those that were held back come before what freed them"


async def test_a_frozen_run_fails_as_it_was_recorded_and_holds_nothing_up(tmp_path: Path) -> None:
    outcome = await replay(tmp_path, await _recorded(*["provider_auth"] * 9), ReplayTerms(mode="frozen"))
    assert (outcome.tally.finished, outcome.tally.diverged, outcome.tally.complete) == (9, 0, True)


@pytest.mark.parametrize(("mode", "finished"), [("live", 1), ("frozen", 6)])
async def test_a_bound_on_money_that_cannot_hold_ends_with_the_first_run_that_used_tokens(
    tmp_path: Path, mode: ReplayMode, finished: int
) -> None:
    usage: JsonValue = {"provider": "p", "model": "m", "input_tokens": 90, "output_tokens": 10}
    runs = await record_scripted(*(Case(session=f"s{n}", parameters=scripted("x", usage=usage)) for n in range(6)))
    budget = Budget(concurrency=1, max_cost=Decimal(5))
    outcome = await replay(tmp_path, runs, ReplayTerms(mode=mode), budget)
    assert (outcome.tally.finished, outcome.tally.complete) == (finished, mode == "frozen")
    assert outcome.tally.exhausted == (COST_UNKNOWN if mode == "live" else None)


class _Shell(ScriptedHarness):
    """A harness whose tools are no play, as far as a replay knows."""

    @property
    def kind(self) -> str:
        return "shell"


async def _live(directory: Path, runs: Sequence[RecordedRun], terms: ReplayTerms) -> Replayed:
    playbacks = Playbacks()
    async with _Shell() as shell:
        harnesses = {"shell": ReplayHarness(shell, playbacks)}
        config = WorkerAgentConfig(harnesses=harnesses, tools=frozenset({"read", "bash"}))
        performer = InProcess(Runs(harnesses, redactor=Redactor()), config)
        with ReplayDirectory.open(directory, manifest(len(runs), terms)) as opened:
            return replayed(opened, await Player(opened, performer, playbacks).play(runs))


async def test_a_live_replay_runs_a_tool_that_does_more_than_read_only_by_its_name(tmp_path: Path) -> None:
    both: tuple[dict[str, JsonValue], ...] = ({"name": "bash", "arguments": {}}, {"name": "read", "arguments": {}})
    cases = (Case(session="s0", parameters=scripted("x", *both)), Case(session="s1", parameters=scripted("x", both[1])))
    runs = [
        run.model_copy(update={"request": run.request.model_copy(update={"parameters": parameters})})
        for run in await record_scripted(*cases)
        if (harness := run.request.parameters.harness) is not None
        for parameters in [
            run.request.parameters.model_copy(update={"harness": harness.model_copy(update={"kind": "shell"})})
        ]
    ]
    outcome = await _live(tmp_path / "by default", runs, LIVE)
    refused = outcome["r0"].result.error
    assert refused is not None
    assert (refused.code.value, outcome["r0"].result.messages) == ("tool_not_allowed", ())
    assert "bash would really run" in str(refused.detail)
    assert (outcome["r1"].result.status, outcome["r1"].tools_real) == ("completed", 1)
    named = await _live(tmp_path / "named", runs, ReplayTerms(mode="live", real_tools=("bash",)))
    assert (named["r0"].result.status, named["r0"].tools_real) == ("completed", 2)
