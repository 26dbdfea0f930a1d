"""What the command line tells of itself: examples in every help, and what a shell completes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from agentstream.infra.cli.app import app
from tests.unit.test_cli import agentstream

_BIN = Path(sys.executable).parent
_SCRIPTS = {"bash": "complete -o default -F", "zsh": "compdef _agentstream_completion agentstream", "fish": "--command"}


def every_command() -> Iterator[tuple[str, str]]:
    """The words of each command and group, and what stands below its options."""
    waiting = [("agentstream", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        yield words, getattr(command, "epilog", None) or ""
        waiting += [(f"{words} {name}", each) for name, each in getattr(command, "commands", {}).items()]


def test_every_command_has_an_example_that_names_it() -> None:
    found = dict(every_command())
    assert len(found) > 15
    missing = [words for words, epilog in found.items() if "\nExample" not in epilog or f"{words}" not in epilog]
    assert missing == []


def test_an_example_stands_in_the_help_on_a_line_of_its_own() -> None:
    shown = agentstream("where", "--help").stdout.splitlines()
    assert "    agentstream where RUN_ID" in shown, shown


def test_commands_are_listed_in_the_order_in_which_one_meets_them() -> None:
    listed = [line.split()[0] for line in agentstream("--help").stdout.partition("Commands:")[2].splitlines() if line]
    met = ["init", "dev", "worker", "invoke", "show", "tail", "capture", "compare", "dead-letters"]
    assert [name for name in listed if name in met] == met


@pytest.mark.parametrize("shell", _SCRIPTS)
def test_the_completion_of_each_shell_can_be_shown(shell: str) -> None:
    done = _complete({"_AGENTSTREAM_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert _SCRIPTS[shell] in done.stdout
    assert f"_AGENTSTREAM_COMPLETE=complete_{shell}" in done.stdout


def test_bash_completes_a_command_and_its_option_by_our_script() -> None:
    # The script itself is run, as bash runs it after TAB: it calls `agentstream` on the PATH, and fills COMPREPLY.
    for words, found in (("agentstream wh", "where"), ("agentstream where --js", "--json")):
        script = f"""
            eval "$(_AGENTSTREAM_COMPLETE=source_bash agentstream)"
            complete -p agentstream >/dev/null || exit 9
            COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _agentstream_completion agentstream
            echo "${{COMPREPLY[*]}}"
        """
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            capture_output=True,
            text=True,
            env={"PATH": f"{_BIN}:/usr/bin:/bin"},
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, f"{found}\n"), done.stderr


def test_zsh_and_fish_are_told_what_a_command_does() -> None:
    asked = {"_TYPER_COMPLETE_ARGS": "agentstream wh", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert '"where":"Say where a run is' in _complete({**asked, "_AGENTSTREAM_COMPLETE": "complete_zsh"}).stdout
    assert "where\tSay where a run is" in _complete({**asked, "_AGENTSTREAM_COMPLETE": "complete_fish"}).stdout


def test_completion_loads_nothing_that_only_commands_need() -> None:
    # TAB must not take the half second of aiokafka and its like. Pydantic is Typer's own: it checks values with it.
    done = _complete(
        {"_AGENTSTREAM_COMPLETE": "complete_bash", "COMP_WORDS": "agentstream wh", "COMP_CWORD": "1"}, "-v"
    )
    assert done.stdout == "where\n"
    loaded = [name for name in ("aiokafka", "httpx", "structlog", "rich") if f"import '{name}'" in done.stderr]
    assert "import 'typer'" in done.stderr
    assert loaded == []


def _complete(variables: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-m", "agentstream.infra.cli"]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=False)
