import ast
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from agentstream.infra.broker import BrokerError
from agentstream.infra.cli.asking import Asked, request_options, said_as_argument, said_on_stdin
from agentstream.infra.cli.chat_prompt import Prompt
from agentstream.infra.cli.exits import (
    BUG,
    FAILED,
    INTERRUPTED,
    OK,
    UNAVAILABLE,
    USAGE,
    CommandError,
    exit_code,
)
from agentstream.infra.cli.screen import Screen
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.toolchain import ToolMissing
from agentstream.infra.topic_admin import TopicsError, TopicsMissing
from tests.architecture.sources import ROOT


def agentstream(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentstream.infra.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def asked(*assignments: str, **options: object) -> Asked:
    values: dict[str, object] = {"session": None, "model": None, "agents_md": None, "harness": None, **options}
    return Asked(text="hi", assignments=assignments, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["--run", "--session"])
def test_tail_refuses_an_empty_name_that_nothing_would_match(option: str) -> None:
    done = agentstream("tail", option, "")  # of a variable that is not set
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == f"agentstream: {option}: is empty, and nothing would match; leave it out to see all results\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingsError("AGENTSTREAM_X: is wrong"), USAGE, "AGENTSTREAM_X: is wrong"),
        (TopicsError("refused"), FAILED, "refused"),
        (TopicsMissing("apply them"), UNAVAILABLE, "apply them"),
        (BrokerError("no\nbroker"), UNAVAILABLE, "no broker"),
        (ToolMissing("No Node", "Install it"), UNAVAILABLE, "No Node. Install it"),
        (KafkaConnectionError("bootstrap"), UNAVAILABLE, "Kafka does not answer"),
        (TopicAuthorizationFailedError("t"), UNAVAILABLE, "this user lacks a right on topic t: reading"),
        (ExceptionGroup("two", [SettingsError("inner")]), USAGE, "inner"),
        (CommandError("stop", FAILED), FAILED, "stop"),
        (BaseExceptionGroup("of a task group", [ExceptionGroup("", [CommandError("deep", USAGE)])]), USAGE, "deep"),
        (KeyError("oops"), BUG, "a bug: --debug shows where"),
        (CommandError("no\x1b]0;x\x07 model", FAILED), FAILED, "no]0;x model"),
    ],
)
def test_every_error_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    assert exit_code(error, debug=False) == code
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_debug_shows_where_it_arose(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code(KeyError("oops"), debug=True)
    assert "KeyError: 'oops'" in capsys.readouterr().err


def test_a_ctrl_c_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(KeyboardInterrupt(), debug=False) == INTERRUPTED
    assert capsys.readouterr().err == ""


def test_the_codes_stand_in_the_help_and_in_the_readme() -> None:
    done = agentstream("invoke", "--help")
    assert done.returncode == OK
    words = " ".join(done.stdout.split())
    readme = (ROOT / "README.md").read_text()
    for code in ("0", "1", "2", "3", "4", "70", "130"):
        assert f" {code} " in words
        assert f"\n| {code} |" in readme


def test_wrong_usage_is_one_line_and_two() -> None:
    for arguments in (["nonsense"], ["invoke"], ["topics", "apply", "--partitions", "x"], ["invoke", "hi", "--nope"]):
        done = agentstream(*arguments)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (USAGE, 1, ""), done.stderr


def test_wrong_usage_names_the_help_of_its_command_and_where_a_general_option_stands() -> None:
    assert "`agentstream topics apply --help` says" in agentstream("topics", "apply", "--nope").stderr
    misplaced = agentstream("where", "x", "--debug").stderr
    assert misplaced.endswith("(it stands before the command: `agentstream --debug …`)\n"), misplaced


def test_why_no_connection_could_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = agentstream("where", "x")
    assert (done.returncode, done.stderr.count("\n")) == (UNAVAILABLE, 1), done.stderr
    assert "from 127.0.0.1:1 ([Errno 111] Connect" in done.stderr.replace("[Errno 61]", "[Errno 111]")


def test_the_command_line_loads_no_kafka_library_before_a_command_needs_it() -> None:
    # aiokafka, pydantic and rich take half a second together, and `--help` must not.
    loaded = "print([m for m in ('aiokafka', 'pydantic', 'httpx') if m in sys.modules])"
    code = f"import sys, agentstream.infra.cli.app; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_set_reaches_any_parameter() -> None:
    options = request_options(
        asked(
            "tools=bash,read",
            "limits.max_turns=3",
            "harness.options.text=hello there",
            "thinking=low",
            "metadata.customer=7",
            harness="scripted",
            model="a/b",
            session="s1",
        )
    )
    assert options == {
        "parameters": {
            "tools": ["bash", "read"],
            "limits": {"max_turns": 3},
            "harness": {"kind": "scripted", "options": {"text": "hello there"}},
            "thinking": "low",
            "model": "a/b",
        },
        "metadata": {"customer": "7"},
        "session_id": "s1",
    }


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="Linux and macOS have a device that never ends")
def test_what_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # `chat < /dev/zero` held 7 GB after eight seconds.
    with Path("/dev/zero").open(encoding="utf-8") as zeros:
        monkeypatch.setattr("sys.stdin", zeros)
        for ask, what in (
            (said_on_stdin, "stdin"),
            (Prompt(Screen()).ask, "a line of stdin"),
            (lambda: request_options(asked(agents_md=Path("/dev/zero"))), "--agents-md /dev/zero"),
        ):
            with pytest.raises(CommandError, match=f"^{what} has more than 67108864 bytes") as refused:
                ask()
            assert refused.value.code == USAGE


def test_instructions_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "AGENTS.md"
    file.write_text("Be brief.")
    assert request_options(asked(agents_md=file))["parameters"] == {"agents_md": "Be brief."}


def test_a_model_without_its_provider_is_refused_in_words() -> None:
    for wrong in ("nonsense", "/x", "openai/"):
        with pytest.raises(CommandError, match="provider/id"):
            request_options(asked(model=wrong))


@pytest.mark.parametrize("assignment", ["tools", "=x"])
def test_an_assignment_without_name_or_value_is_refused(assignment: str) -> None:
    with pytest.raises(CommandError, match="name=value"):
        request_options(asked(assignment))
    with pytest.raises(CommandError, match="limits is set"):
        request_options(asked("limits=3", "limits.max_turns=3"))


def test_a_pipe_gets_plain_tab_separated_lines() -> None:
    out, err = StringIO(), StringIO()
    screen = Screen(out=out, err=err)
    screen.table(("name", "value"), [("a", "1"), ("b", "2")])
    screen.json({"ü": [1]})
    screen.note("working\x1b]0;x\x07", "red")
    assert out.getvalue() == 'a\t1\nb\t2\n{"ü": [1]}\n'
    assert err.getvalue() == "working]0;x\n"


class Tty(StringIO):
    def isatty(self) -> bool:
        return True


def test_what_callers_chose_neither_drives_the_terminal_nor_breaks_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    # One session with the name `[/x]` ended the table on a terminal as a bug of ours: rich took it for markup.
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    piped, shown = StringIO(), Tty()
    for out in (piped, shown):
        Screen(out=out).table(("session", "run"), [("[/x] \x1b]0;t\x07\ta\nb", "0123456789" * 5)])
    assert piped.getvalue() == f"[/x] ]0;t a b\t{'0123456789' * 5}\n"
    assert "[/x]" in shown.getvalue()
    assert "]0;t" in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()
    folded = "".join(character for character in shown.getvalue() if character.isdigit())
    assert "0123456789" * 5 in folded, "half an id is of no use"


def test_inspect_shows_what_takes_effect_with_these_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "AGENTS.md").write_text("Be brief.")
    (tmp_path / "agent.json").write_text(
        '{"tools": ["bash", "write"], "limits": {"max_turns": "x"}, "thinking": "low"}'
    )
    monkeypatch.setenv("AGENTSTREAM_AGENT_DIR", str(tmp_path))
    monkeypatch.setenv("AGENTSTREAM_TOOLS", "bash,read")
    monkeypatch.setenv("AGENTSTREAM_HARNESSES", "scripted,pi")
    monkeypatch.setenv("AGENTSTREAM_LIMITS_IDLE_MS", "1234")
    shown = json.loads(agentstream("inspect", "--json").stdout)
    assert shown["allowed"] == {"harnesses": ["scripted", "pi"], "tools": ["bash", "read"], "credentials": []}
    defaults = shown["defaults"]
    assert (defaults["agents_md"], defaults["thinking"], defaults["tools"]) == ("Be brief.", "low", ["bash"])
    assert defaults["harness"]["kind"] == "scripted"
    assert defaults["limits"]["idle_ms"] == 1234
    assert len(shown["findings"]) == 2
    parameters = shown["schemas"]["invoke-request"]["$defs"]["AgentParameters"]["properties"]
    assert parameters["thinking"]["default"] == "low"
    document = json.loads(agentstream("inspect", "--asyncapi").stdout)
    assert document["asyncapi"] == "3.1.0"
    assert document["components"]["schemas"]["Limits"]["properties"]["idle_ms"]["default"] == 1234


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("agentstream", f"{sys.executable} -m agentstream.infra.cli")
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)


def test_streams_that_are_closed_or_full_are_no_bug_of_ours() -> None:
    assert shell("agentstream inspect --json >&-").returncode == OK
    assert shell("agentstream inspect --json | head -1 >/dev/null").returncode == OK
    closed = shell("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 agentstream invoke - <&-")
    assert (closed.returncode, closed.stderr.count("\n")) == (USAGE, 1), closed.stderr


def test_a_locale_that_is_not_utf8_costs_no_word_and_json_stays_json(tmp_path: Path) -> None:
    # `tail` and `show` ended with 70 at the first word that the locale's encoding has not.
    (tmp_path / "AGENTS.md").write_text("Sei höflich · 礼貌 · 🙂", encoding="utf-8")
    done = shell(f"AGENTSTREAM_AGENT_DIR={tmp_path} PYTHONIOENCODING=ascii agentstream inspect --json")
    assert done.returncode == OK, done.stderr
    assert json.loads(done.stdout)["defaults"]["agents_md"] == "Sei höflich · 礼貌 · 🙂"


@pytest.mark.parametrize(
    "command",
    [
        "invoke $'bad\\xff'",
        "invoke --continue $'bad\\xff' hi",
        "invoke --file - --round $'bad\\xff'",
        "cancel $'bad\\xff'",
        "tail --session $'bad\\xff'",
    ],
)
def test_an_argument_that_is_no_text_is_refused(command: str) -> None:
    # `--continue` and `--round` ended with 70, and in `--set metadata.x=…` it was sent as something else.
    refused = shell(f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 agentstream {command}")
    assert (refused.returncode, refused.stdout) == (USAGE, "")
    assert refused.stderr == "agentstream: the argument `bad\\xff` is not UTF-8 text (at byte 3)\n"


def test_a_file_whose_name_is_no_text_can_be_given(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).write_text("Be kind.")
    kept = shell(f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 agentstream invoke --agents-md {tmp_path}/$'bad\\xff' hi")
    assert (kept.returncode, "Kafka does not answer" in kept.stderr) == (UNAVAILABLE, True), kept.stderr


def test_a_message_of_another_locale_is_read() -> None:
    assert said_as_argument(os.fsdecode("Zoë ✓".encode())) == "Zoë ✓"
    assert said_as_argument("Zo\udcc3\udcab") == "Zoë"  # as Python gives it in the locale C


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_said_in_one_line() -> None:
    full = shell("agentstream inspect --json >/dev/full")
    assert (full.returncode, full.stderr.count("\n")) == (FAILED, 1), full.stderr
    assert "No space left" in full.stderr


def test_a_docker_that_is_not_there_is_a_tool_that_is_missing() -> None:
    done = shell("AGENTSTREAM_BROKER=docker DOCKER_HOST=unix:///nowhere/docker.sock agentstream dev")
    assert (done.returncode, done.stderr.count("\n")) == (UNAVAILABLE, 1), done.stderr
    assert "no Docker engine answers" in done.stderr


@pytest.mark.parametrize(
    ("assignment", "advice"),
    [
        ("limit.max_turns=3", "did you mean limits"),
        ("limits.max_turn=3", "did you mean limits.max_turns"),
        ('limits={"turns_max": 3}', "there are total_ms"),
        ("foo=1", "there are model"),
        ("max_turns=1", "did you mean limits.max_turns"),
    ],
)
def test_a_parameter_that_does_not_exist_is_refused_with_what_was_perhaps_meant(assignment: str, advice: str) -> None:
    with pytest.raises(CommandError, match=advice):
        request_options(asked(assignment))
