"""`agentstream replay` as a process: killed, interrupted, gone on with, and what it says."""

import signal
from pathlib import Path

import pytest

from tests.integration.replay_fixtures import Terminal, ended_and_gone_on_with, recorded_at


@pytest.fixture
async def terminal(tmp_path: Path) -> Terminal:
    return await recorded_at(tmp_path)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
async def test_what_was_finished_before_the_end_came_is_not_played_again(
    terminal: Terminal, sent: signal.Signals
) -> None:
    await ended_and_gone_on_with(terminal, sent)


@pytest.mark.parametrize("option", ["--limit", "--max-runs"])
async def test_a_bound_that_is_reached_ends_with_2_and_a_word_about_it(terminal: Terminal, option: str) -> None:
    out, err = await terminal.said("--mode", "frozen", option, "4", code=2)
    assert "4 runs: 4 completed, 0 did not; 0 diverged" in out
    assert "not complete: stopped at 4 runs" in err
    assert len(terminal.finished()) == 4
    await terminal.said("--mode", "frozen", option, "6", code=2)
    assert len(terminal.finished()) == 6, "it goes on to the larger limit, and not by so many again"


async def test_the_first_divergence_is_shown(terminal: Terminal) -> None:
    changed = ("--harness", "scripted", "--set", 'harness.options.text="x"', "--set", "harness.options.delay_ms=0")
    out, _ = await terminal.said("--mode", "frozen", *changed)
    assert "12 runs: 0 completed, 12 did not; 12 diverged" in out
    assert "after 0 steps: another text" in out


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--mode", "thawed"), "mode: Input should be 'live', 'frozen' or 'hybrid'"),
        (("--on-miss", "error"), "on_miss error is for hybrid replays, this one is live"),
        (("--mode", "hybrid", "--on-miss", "real"), "on_miss real and the names of real tools go together"),
        (("--via", "pigeon"), "there are process and kafka"),
        (("--no-worker",), "it needs --via kafka"),
        (("--set", "modle=a/b"), "did you mean model?"),
        (("--mode", "frozen", "--model", "a/b"), "--model: no effect in a frozen replay"),
        (("--mode", "frozen", "--real-tools", "bash"), "no tool really runs in a frozen replay"),
        (("--mode", "frozen", "--baseline-repeats", "2"), "they have no noise"),
        (("--via", "kafka", "--no-worker", "--baseline-repeats", "2"), "use it without --no-worker"),
    ],
)
async def test_what_cannot_be_asked_for_is_said(terminal: Terminal, options: tuple[str, ...], what: str) -> None:
    _, err = await terminal.said(*options, code=2)
    assert what in err
    assert not (terminal.home / "out").exists()


@pytest.mark.parametrize("more", [(), ("--baseline-repeats", "2")])
async def test_a_broker_that_is_away_leaves_no_replay(terminal: Terminal, more: tuple[str, ...]) -> None:
    away = Terminal(home=terminal.home, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    _, err = await away.said("--via", "kafka", *more, code=3)
    assert "127.0.0.1" in err
    assert not (terminal.home / "out").exists()


async def test_a_tool_that_the_settings_do_not_allow_cannot_be_made_to_run(terminal: Terminal) -> None:
    _, err = await terminal.said("--mode", "hybrid", "--on-miss", "real", "--real-tools", "bash", code=2)
    assert "AGENTSTREAM_TOOLS: does not allow bash" in err


async def test_instructions_that_no_model_is_told_are_said_to_show_nothing(terminal: Terminal) -> None:
    (terminal.home / "AGENTS.md").write_text("Be brief.", encoding="utf-8")
    _, err = await terminal.said("--mode", "frozen", "--agents-md", "AGENTS.md", "--limit", "1", code=2)
    assert "--agents-md shows nothing in a frozen replay" in err


async def test_other_terms_are_refused_and_a_damaged_recording_too(terminal: Terminal) -> None:
    await terminal.said("--mode", "frozen")
    _, err = await terminal.said("--mode", "live", code=2)
    assert "was begun with other terms (mode was frozen, is live)" in err
    part = terminal.home / "recording" / "runs-00001.jsonl"
    part.write_bytes(part.read_bytes().replace(b"a b c", b"a b d"))
    _, err = await terminal.said("--mode", "frozen", code=2)
    assert "was changed since it was recorded" in err
