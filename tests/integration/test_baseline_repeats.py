"""The noise of a baseline: plays of it beside the candidate's, and what `compare` makes of them."""

import json
from pathlib import Path

import pytest

from agentstream.consumers.replay.playing import read_replay
from tests.support.commands import Said, Terminal
from tests.support.replays import Case, record_scripted, scripted, write

RUNS = 10
CHANGED = ("--harness", "scripted", "--set", 'harness.options.text="other"')
FLAKY = """
def flaky(answer):
    return not (answer.result.run_id.split(":")[1] == "1" and answer.case.run_id in ("r1", "r2"))
"""


@pytest.fixture
async def terminal(tmp_path: Path) -> Terminal:
    cases = (Case(session=f"s{n}", parameters=scripted("same", delay_ms=n)) for n in range(RUNS))
    write(tmp_path / "recording", await record_scripted(*cases))
    (tmp_path / "flaky.py").write_text(FLAKY, encoding="utf-8")
    return Terminal(home=tmp_path)


async def _replay(terminal: Terminal, *options: str, code: int = 0) -> Said:
    return await terminal.type("replay", "recording", "--out", "changed", *CHANGED, *options, code=code)


async def test_the_baseline_is_played_without_the_changes_and_its_noise_is_shown(terminal: Terminal) -> None:
    await _replay(terminal, "--baseline-repeats", "2")
    baseline = list(read_replay(terminal.home / "changed" / "baseline")[1])
    assert sorted((run.run_id, run.repeat) for run in baseline) == [
        (f"r{n}", again) for n in range(RUNS) for again in (0, 1)
    ]
    assert {run.result.text for run in baseline} == {"same"}
    assert {run.result.text for run in read_replay(terminal.home / "changed")[1]} == {"other"}
    compared = ("compare", "changed", "--recording", "recording", "--baseline-repeats", "2", "--out", "report")
    rule = ("--fail-if", "pass_rate(flaky) < baseline")
    said = await terminal.type(
        *compared, "--eval", "exact", "--eval", "flaky:flaky", "--eval", "latency", *rule, code=0
    )
    assert (said.rows["exact"][-1], said.rows["flaky"][-1]) == ("0.0% change", "20.0% change")
    assert said.rows["latency (s)"][-1].startswith("["), "all latencies change: what matters is by how much"
    noise = "20.0% change from one play of the baseline to another, and 10.0% from the baseline to the candidate"
    assert f"flaky: noise: {noise}; the baseline's plays differ by -20.0% [" in said.out
    page = (terminal.home / "report" / "report.html").read_text(encoding="utf-8")
    assert noise in page
    assert page.count("baseline, first of 2 plays: completed") == RUNS
    evidence = (terminal.home / "report" / "evidence.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(evidence[0])["baseline_repeats"] == 2
    told = [line for line in map(json.loads, evidence) if line.get("side") == "baseline" and line["type"] == "answer"]
    assert len(told) == 2 * RUNS


async def test_one_bound_holds_for_both_and_a_larger_one_goes_on(terminal: Terminal) -> None:
    said = await _replay(terminal, "--baseline-repeats", "2", "--limit", str(RUNS + 4), code=2)
    assert f"{RUNS} runs: {RUNS} completed" in said.out
    assert "baseline: 4 runs: 4 completed" in said.out
    assert "baseline: not complete: stopped at 4 runs" in said.err
    whole = json.loads((await _replay(terminal, "--baseline-repeats", "2", "--json")).out)
    assert (whole["finished"], whole["baseline"]["finished"], whole["baseline"]["complete"]) == (RUNS, 2 * RUNS, True)
    anew = json.loads((await _replay(terminal, "--baseline-repeats", "2", "--restart", "--json")).out)
    assert anew["baseline"]["id"] != whole["baseline"]["id"], "begun anew are both"


async def test_where_there_is_no_noise_to_learn_it_is_said(terminal: Terminal) -> None:
    compared = ("compare", "changed", "--recording", "recording", "--baseline-repeats", "2")
    await _replay(terminal)
    said = await terminal.type(*compared, code=2)
    assert "changed holds no plays of its baseline; give `replay` the same --baseline-repeats 2" in said.err
    await terminal.type("replay", "recording", "--out", "once", code=0)
    said = await terminal.type(*compared, "--baseline", "once", code=2)
    assert "in once each run was played 1 time" in said.err
    await terminal.type("replay", "recording", "--out", "frozen", "--mode", "frozen", "--repeat", "2", code=0)
    said = await terminal.type(*compared, "--baseline", "frozen", code=2)
    assert "frozen is frozen: its plays are the recorded answers each time" in said.err


async def test_plays_of_the_baseline_that_nobody_asks_for_are_mentioned(terminal: Terminal) -> None:
    await _replay(terminal, "--baseline-repeats", "2")
    said = await terminal.type("compare", "changed", "--recording", "recording", code=0)
    assert "changed/baseline has plays of the baseline: --baseline-repeats 2 compares with those" in said.err
