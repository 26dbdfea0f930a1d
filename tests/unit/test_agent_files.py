"""AGENTS.md and agent.json: what can be used is, what cannot is a finding with file and field."""

import json
import os
from pathlib import Path

import pytest

from agentstream.consumers.agent_files import AgentFiles, read_agent_files
from agentstream.schemas.requests import AgentParameters, HarnessChoice, Limits


def read(directory: Path, agent_json: str | bytes | None = None, agents_md: bytes | None = None) -> AgentFiles:
    if agent_json is not None:
        raw = agent_json.encode() if isinstance(agent_json, str) else agent_json
        (directory / "agent.json").write_bytes(raw)
    if agents_md is not None:
        (directory / "AGENTS.md").write_bytes(agents_md)
    return read_agent_files(directory)


def test_no_directory_and_an_empty_one_give_nothing(tmp_path: Path) -> None:
    assert read_agent_files(None) == read_agent_files(tmp_path) == AgentFiles()
    assert read_agent_files(tmp_path / "nowhere") == AgentFiles()


def test_both_files_are_read(tmp_path: Path) -> None:
    own = {
        "model": "openai/x",
        "harness": {"kind": "scripted", "options": {"text": "hi"}},
        "tools": ["bash"],
        "limits": {"max_turns": 3},
    }
    files = read(tmp_path, json.dumps(own), b"\xef\xbb\xbfBe brief.")
    assert files.agents_md == "Be brief."
    assert files.parameters == AgentParameters(
        model="openai/x",
        harness=HarnessChoice(kind="scripted", options={"text": "hi"}),
        tools=("bash",),
        limits=Limits(max_turns=3),
    )
    assert files.findings == ()


def test_an_agent_has_the_name_that_its_file_gives_it_and_else_none(tmp_path: Path) -> None:
    assert read(tmp_path, '{"name": "support", "model": "openai/x"}') == AgentFiles(
        name="support", parameters=AgentParameters(model="openai/x")
    )
    assert read(tmp_path, '{"model": "openai/x"}').name is None
    for wrong in ("", "x" * 129, "two\nlines", 7, ["a"]):
        files = read(tmp_path, json.dumps({"name": wrong, "model": "openai/x"}))
        assert (files.name, files.parameters.model) == (None, "openai/x")
        (finding,) = files.findings
        assert str(finding) == (
            "agent.json: name: must be a line of 1 to 128 characters; the harness's kind takes effect"
        )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 1' + "0" * 10_000 + "}", "not JSON"),
        ("[]", "must be an object, not an array"),
        ("null", "must be an object, not null"),
        ('"x"', "must be an object, not a string"),
        ("true", "must be an object, not a boolean"),
        ("1.5", "must be an object, not a number"),
        (b"\xff\xfe", "not UTF-8"),
        ('{"model": "' + "x" * 1_100_000 + '"}', "larger than"),
    ],
)
def test_a_file_that_is_no_object_falls_back_as_a_whole(tmp_path: Path, text: str | bytes, problem: str) -> None:
    files = read(tmp_path, text)
    assert files.parameters == AgentParameters()
    (finding,) = files.findings
    assert (finding.file, finding.field) == ("agent.json", None)
    assert problem in finding.problem


def test_fields_fall_back_one_by_one(tmp_path: Path) -> None:
    own = {
        "model": "no-slash",
        "thinking": "low",
        "tools": ["bash", 5],
        "stream": 7,
        "limits": {"max_turns": 3, "idle_ms": "soon", "speed": 1},
        "credentials": None,
        "agents_md": "x",
        "colour": "red",
    }
    files = read(tmp_path, json.dumps(own))
    assert files.parameters == AgentParameters(thinking="low", limits=Limits(max_turns=3))
    took = {finding.field: finding.took_effect for finding in files.findings}
    assert took == {
        "model": "the default takes effect",
        "tools": "no tools",
        "stream": "the default takes effect",
        "limits.idle_ms": "the default takes effect",
        "limits.speed": "it is left out",
        "agents_md": "it is left out",
        "colour": "it is left out",
    }


def test_a_finding_does_not_repeat_the_value_which_may_be_a_key(tmp_path: Path) -> None:
    files = read(tmp_path, json.dumps({"credentials": "sk canary", "model": "sk-canary", "limits": "sk-canary"}))
    assert len(files.findings) == 3
    assert not any("canary" in str(finding) for finding in files.findings)


@pytest.mark.parametrize(("raw", "problem"), [(b"\xff", "not UTF-8"), (b"x" * 300_000, "larger than 262144 bytes")])
def test_an_unusable_agents_md_is_left_out(tmp_path: Path, raw: bytes, problem: str) -> None:
    files = read(tmp_path, agents_md=raw)
    assert files.agents_md is None
    assert [str(finding) for finding in files.findings] == [f"AGENTS.md: {problem}; the file is left out"]


def test_a_directory_in_a_files_place_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "agent.json").mkdir()
    (finding,) = read_agent_files(tmp_path).findings
    assert finding.problem == "cannot be read: Is a directory"


def test_files_in_a_parent_or_in_the_current_directory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    read(tmp_path, '{"model": "planted/x"}', b"planted")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path.cwd() == Path(os.environ["HOME"])
    assert read_agent_files(inner) == read_agent_files(None) == AgentFiles()


def test_a_pipe_in_a_files_place_is_a_finding_and_nobody_waits_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "AGENTS.md")
    (finding,) = read_agent_files(tmp_path).findings
    assert "no regular file" in finding.problem


def test_a_comment_and_the_name_of_a_schema_are_for_those_who_read_the_file(tmp_path: Path) -> None:
    found = read(
        tmp_path, '{"$schema": "x.json", "$comment": ["a"], "limits": {"$comment": "b", "max_turns": 3}, "$x": 1}'
    )
    assert found.parameters == AgentParameters(limits=Limits(max_turns=3))
    assert [finding.field for finding in found.findings] == ["$x"]
