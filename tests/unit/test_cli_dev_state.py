import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from agentstream.infra.connection import kafka_connection
from agentstream.infra.dev import beside
from agentstream.infra.dev_state import published, running_dev, running_devs, state_directory
from agentstream.infra.settings import CredentialSettings, LimitSettings, Settings
from agentstream.infra.settings_file import SettingsError


def state_path() -> Path:
    return state_directory() / f"dev-{os.getpid()}.json"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_running_dev_is_found_until_it_ends() -> None:
    assert running_dev() is None
    with published("localhost:1", Settings(topic_prefix="mine.")):
        found = running_dev()
        assert found is not None
        assert (found.bootstrap_servers, found.settings.topic_prefix, found.pid) == (
            "localhost:1",
            "mine.",
            os.getpid(),
        )
        assert state_path().parent.stat().st_mode & 0o077 == 0
    assert running_dev() is None
    assert not state_path().exists()


def test_the_latest_dev_is_found_and_its_end_does_not_hide_an_earlier_one() -> None:
    with (
        published("localhost:1", Settings(topic_prefix="a.")),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later,
    ):
        started = psutil.Process(later.pid).create_time()
        first = json.loads(state_path().read_text())
        state = {**first, "bootstrap_servers": "localhost:2", "pid": later.pid, "started": started}
        (state_directory() / f"dev-{later.pid}.json").write_text(json.dumps(state))
        assert (found := running_dev()) is not None
        assert found.bootstrap_servers == "localhost:2"
        later.kill()
        later.wait()
        assert (found := running_dev()) is not None
        assert found.bootstrap_servers == "localhost:1"


def test_of_two_the_later_is_found_and_who_is_sent_there_is_told_once() -> None:
    with (
        published("localhost:2", Settings()),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
    ):
        started = psutil.Process().create_time()
        state = {**json.loads(state_path().read_text()), "bootstrap_servers": "localhost:1", "pid": other.pid}
        state["started"] = psutil.Process(other.pid).create_time()
        (state_directory() / f"dev-{other.pid}.json").write_text(json.dumps(state))
        assert started < state["started"]
        command = [sys.executable, "-m", "agentstream.infra.cli", "inspect", "--json"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        other.kill()
    line = "this goes to the latest, localhost:1; KAFKA_BOOTSTRAP_SERVERS names another (localhost:2)\n"
    assert told.count("several `agentstream dev` run") == 1
    assert line in told


def test_a_dev_says_which_others_run_on_other_brokers() -> None:
    with published("localhost:1", Settings()):
        others = running_devs()
    assert list(beside("localhost:1", others)) == []
    (line,) = beside("localhost:2", others)
    assert f"(pid {os.getpid()})" in line
    assert "KAFKA_BOOTSTRAP_SERVERS=localhost:1 names the other" in line


def test_a_dev_of_a_terminal_with_another_runtime_directory_is_not_used_but_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Started over ssh, looked for on the desktop: it was told to start one.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with published("localhost:1", Settings()):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert running_dev() is None
        with pytest.raises(SettingsError, match=r"KAFKA_BOOTSTRAP_SERVERS=localhost:1 goes there"):
            kafka_connection(Settings().kafka)


def test_what_a_killed_dev_left_is_not_believed() -> None:
    with published("localhost:1", Settings(topic_prefix="a.")):
        state = json.loads(state_path().read_text())
        # The same pid, later: another process has it now.
        for stale in ({"started": state["started"] - 100}, {"pid": max(psutil.pids()) + 1000}):
            state_path().write_text(json.dumps(state | stale))
            assert running_dev() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "null"])
def test_a_misshapen_file_is_none(text: str) -> None:
    state_path().parent.mkdir(parents=True)
    state_path().write_text(text)
    assert running_dev() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_elses_file_is_not_believed() -> None:
    # Without a runtime directory the file lies under /tmp, where anybody could put one that names their broker.
    with published("localhost:1", Settings(topic_prefix="a.")):
        os.chown(state_path(), 12345, 12345)
        assert running_dev() is None
        os.chown(state_path(), 0, 0)
        assert running_dev() is not None


def test_what_dev_allows_is_known_elsewhere_and_its_keys_are_not() -> None:
    # `inspect` said that there were no tools and no credentials, in the terminal beside a dev that had both.
    own = CredentialSettings(provider="openai", api_key=SecretStr("sk-canary"))
    started_with = Settings(
        tools=("bash",), model="openai/x", limits=LimitSettings(max_turns=7), credentials={"team": own}
    )
    with published("localhost:1", started_with):
        assert "sk-canary" not in state_path().read_text()
        assert (found := running_dev()) is not None
    assert (found.settings.tools, found.settings.model) == (("bash",), "openai/x")
    assert found.settings.limits.max_turns == 7
    # `doctor` beside a dev with pi-http said that the URL is not set.
    with published("localhost:1", Settings(harnesses=("pi-http",), pi_http_url="http://127.0.0.1:8790")):
        assert (found_http := running_dev()) is not None
    assert found_http.settings.pi_http_url == "http://127.0.0.1:8790"
    assert [(name, each.provider) for name, each in found.settings.credentials.items()] == [("team", "openai")]
