"""What a replay refuses before its first run: tools that would act, models that nobody could ask."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from tests.integration.replay_fixtures import Terminal

PI = {"AGENTSTREAM_HARNESSES": "pi,scripted", "AGENTSTREAM_TOOLS": "bash,read"}


async def _cases(home: Path, *parameters: Mapping[str, JsonValue], environment: Mapping[str, str]) -> Terminal:
    """A recording of cases that ask for Pi, and for this."""
    lines = [{"input": "hi", "parameters": {"harness": {"kind": "pi"}, **each}} for each in parameters]
    (home / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    terminal = Terminal(home=home, environment={**PI, **environment})
    await terminal.type("capture", "recording", "--import", "cases.jsonl", code=0)
    return terminal


@pytest.mark.parametrize(
    ("tools", "named", "refused"),
    [
        (["bash", "read"], (), "bash would really run, and may do more than read: --real-tools bash allows it"),
        (["bash", "read"], ("--real-tools", "bash"), None),
        (["read"], (), None),
    ],
)
async def test_live_runs_do_more_than_read_only_if_their_tools_are_named(
    tmp_path: Path, tools: list[JsonValue], named: tuple[str, ...], refused: str | None
) -> None:
    # The model of no provider: with the tools allowed, that is the next thing to be refused, and still nothing ran.
    terminal = await _cases(tmp_path, {"tools": tools}, environment={"AGENTSTREAM_MODEL": "nobody/nothing"})
    _, err = await terminal.said(*named, code=2)
    if refused is not None:
        assert refused in err
        assert "tools that really run" not in err
    else:
        assert f"tools that really run: {', '.join(map(str, tools))}\n" in err
        assert "there are no credentials for nobody/nothing here" in err
    assert not (terminal.home / "out").exists(), "the mended command would be told of other terms"


async def test_runs_whose_tools_the_settings_do_not_allow_are_told_and_refused_if_all_are(tmp_path: Path) -> None:
    beyond: Mapping[str, JsonValue] = {"tools": ["write", "bash"]}
    within: Mapping[str, JsonValue] = {"tools": ["bash"]}
    (tmp_path / "some").mkdir()
    some = await _cases(tmp_path / "some", beyond, within, environment={"AGENTSTREAM_MODEL": "nobody/nothing"})
    _, err = await some.said("--real-tools", "bash", code=2)
    assert "AGENTSTREAM_TOOLS does not allow write (1 run): these runs end as tool_not_allowed\n" in err
    alone = await _cases(tmp_path, beyond, environment={})
    _, err = await alone.said("--real-tools", "bash", code=2)
    assert "no run could be played: AGENTSTREAM_TOOLS does not allow write (1 run); --mode hybrid answers" in err


async def test_a_model_without_credentials_is_said_before_the_first_run(tmp_path: Path) -> None:
    named: Mapping[str, JsonValue] = {"model": "openai/gpt-5-mini", "credentials": "team"}
    terminal = await _cases(tmp_path, {}, named, environment={"OPENAI_API_KEY": "sk-a", "AGENTSTREAM_MODEL": "o/p"})
    _, err = await terminal.said("--model", "anthropic/claude-haiku-4-5", code=2)
    assert "there are no credentials for anthropic/claude-haiku-4-5 and credentials named team here" in err
    assert "set OPENAI_API_KEY or ANTHROPIC_API_KEY" in err


async def test_runs_that_will_fail_are_counted_of_all(tmp_path: Path) -> None:
    # Of 23 runs it said `1 of 7`: 16 of them asked no model.
    named: Mapping[str, JsonValue] = {"model": "openai/gpt-5-mini", "credentials": "team"}
    played: Mapping[str, JsonValue] = {"harness": {"kind": "scripted", "options": {"text": "hi"}}}
    terminal = await _cases(tmp_path, {}, named, played, environment={})
    _, err = await terminal.said("--mode", "hybrid", "--limit", "1", code=2)
    assert "1 of 3 runs will fail: there are no credentials named team here\n" in err


async def test_a_harness_that_the_settings_do_not_allow_is_said_before_the_first_run(tmp_path: Path) -> None:
    # 16 of 23 runs ended as harness_not_allowed, after the others had been paid for.
    other: Mapping[str, JsonValue] = {"harness": {"kind": "other"}}
    played: Mapping[str, JsonValue] = {"harness": {"kind": "scripted", "options": {"text": "hi"}}}
    (tmp_path / "some").mkdir()
    some = await _cases(tmp_path / "some", other, played, other, environment={})
    out, err = await some.said(code=0)
    assert "AGENTSTREAM_HARNESSES does not allow other (2 runs): these runs end as harness_not_allowed\n" in err
    assert "3 runs: 1 completed, 2 did not; 0 diverged" in out
    none = await _cases(tmp_path, other, environment={})
    _, err = await none.said(code=2)
    assert "no run could be played: AGENTSTREAM_HARNESSES does not allow other (1 run); --harness plays" in err


async def test_a_bound_on_money_is_refused_where_no_price_is_known(tmp_path: Path) -> None:
    terminal = await _cases(tmp_path, {}, environment={})
    _, err = await terminal.said("--max-cost", "5", code=2)
    assert "--max-cost cannot hold: nobody knows what these runs cost" in err
    assert not (terminal.home / "out").exists(), "the mended command would be told of other terms"


async def test_a_frozen_replay_of_nothing_but_questions_is_refused(tmp_path: Path) -> None:
    terminal = await _cases(tmp_path, {}, environment={})
    _, err = await terminal.said("--mode", "frozen", code=2)
    assert "no run can be played frozen: the recording has no result of this run" in err
