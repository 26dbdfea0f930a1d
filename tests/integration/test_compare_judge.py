"""A model judges answers: asked over HTTP, by `agentstream compare` as it is typed."""

import json
from pathlib import Path

from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.offline_model.server import Call
from tests.support.commands import Terminal
from tests.support.replays import Case, record_scripted, scripted, write

CASES, RUDE = 20, {f"r{n}" for n in range(0, 20, 4)}
RUBRIC = "Is the answer polite?"
JUDGE = ("--eval", f"polite=judge:{RUBRIC}", "--judge-model", "openai-chat:offline")


def verdict(right: bool, reason: str) -> str:
    """An answer that has the offline model, which reads it as the judge, say this of it."""
    said = json.dumps({"reason": reason, "pass": right, "score": float(right)})
    return f"[[tool:final_result {said}]]"


async def replayed(home: Path) -> Terminal:
    """A recording of polite answers, and a live replay that answers five of twenty rudely."""
    polite = verdict(True, "it says please")
    runs = await record_scripted(
        *(Case(session=f"s{n}", text=f"case {n}?", parameters=scripted(polite)) for n in range(CASES))
    )
    for place, run in enumerate(runs):
        if run.run_id in RUDE:
            parameters = type(run.request.parameters).model_validate(scripted(verdict(False, f"case {place} swears")))
            runs[place] = run.model_copy(update={"request": run.request.model_copy(update={"parameters": parameters})})
    write(home / "recording", runs)
    terminal = Terminal(home=home)
    played = await terminal.type("replay", "recording", "--out", "live", "--mode", "live")
    assert played.code == 0, played.err
    return terminal


def asked(call: Call) -> str:
    return call.conversation.prompt


async def test_a_model_judges_each_answer_and_what_it_says_is_the_verdict(tmp_path: Path) -> None:
    terminal = await replayed(tmp_path)
    compare = ("compare", "live", "--recording", "recording", *JUDGE, "--out", "report")
    async with OfflineModel(api_keys=frozenset({"a-key"})) as model:
        environment = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "a-key"}
        rule = "pass_rate(polite) < baseline - 0.02 at 95%"
        said = await terminal.type(*compare, "--fail-if", rule, variables=environment)
        assert said.code == 1, said.err
        assert [cell.split()[0] for cell in said.rows["polite"][:2]] == ["100.0%", "75.0%"]
        assert len(model.calls) == 2 * CASES
        assert {call.conversation.model for call in model.calls} == {"offline"}
        for n in range(CASES):
            mine = [asked(call) for call in model.calls if f"case {n}?" in asked(call)]
            assert len(mine) == 2
            assert all(RUBRIC in prompt and "final_result" in prompt for prompt in mine)
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {one["evaluator"]["name"]: set(one["worse"]) for one in document["evaluators"]}["polite"] == RUDE
    assert "case 8 swears" in (tmp_path / "report" / "evidence.jsonl").read_text()


async def test_a_judge_that_cannot_be_asked_is_an_error_of_each_case_and_no_verdict(tmp_path: Path) -> None:
    terminal = await replayed(tmp_path)
    compare = ("compare", "live", "--recording", "recording", *JUDGE, "--eval", "exact", "--out", "report")
    async with OfflineModel(api_keys=frozenset({"a-key"})) as model:
        environment = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "another-key"}
        said = await terminal.type(*compare, "--fail-if", "pass_rate(polite) < 0.5 at 95%", variables=environment)
        assert said.code == 2, said.out
        assert model.calls
    assert "exact" in said.rows
    evidence = (tmp_path / "report" / "evidence.jsonl").read_text()
    assert "Incorrect API key" in evidence
    assert "another-key" not in evidence
