"""`agentstream compare` as a process, on recordings and replays that were really made."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from xml.etree.ElementTree import parse

import pytest
from pydantic import JsonValue

from tests.support.cluster import Cluster
from tests.support.commands import Said, Terminal, at, ended
from tests.support.evaluations import evaluations
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.replays import Case, record_scripted, scripted, write

CASES = 40
CHANGED = {f"r{n}" for n in range(0, CASES, 10)}
TOOL: dict[str, JsonValue] = {"name": "look", "arguments": {"path": "a"}, "result": "A"}
CASES_AS_RECORDED = [
    Case(session=f"s{n}", text=f"case {n}?", parameters=scripted(f"answer {n}", TOOL)) for n in range(CASES)
]
RULE = "pass_rate(exact) < baseline - 0.02 at 95%"


async def unread(terminal: Terminal, *arguments: str) -> Said:
    """The command with a pipe for stdout whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    async with terminal.command(*arguments, stdout=writer) as process:
        os.close(writer)
        return await ended(process)


@pytest.fixture
async def terminal(tmp_path: Path) -> Terminal:
    """A recording of runs with tools: a live replay of it answers four of forty in another way."""
    runs = await record_scripted(*CASES_AS_RECORDED)
    for place, run in enumerate(runs):
        if run.run_id in CHANGED:
            parameters = type(run.request.parameters).model_validate(scripted(f"other {place}", TOOL))
            request = run.request.model_copy(update={"parameters": parameters})
            runs[place] = run.model_copy(update={"request": request})
    write(tmp_path / "recording", runs)
    return Terminal(home=tmp_path)


async def test_a_frozen_replay_of_the_same_code_has_nothing_worse_and_passes(terminal: Terminal) -> None:
    write(terminal.home / "plain", await record_scripted(*CASES_AS_RECORDED))
    played = await terminal.type("replay", "plain", "--out", "same", "--mode", "frozen")
    assert played.code == 0, played.err
    said = await terminal.type("compare", "same", "--recording", "plain", "--fail-if", "errors > 0 at 95%")
    assert said.code == 0, said.out
    assert [said.rows[name][:2] for name in ("exact", "tools")] == [["100.0% [91.2%, 100.0%]"] * 2] * 2
    assert said.out.endswith("verdict: passed\n")
    assert "same against the recording plain; " in said.err


async def test_a_frozen_replay_that_leaves_the_recording_is_said_case_by_case(terminal: Terminal) -> None:
    await terminal.type("replay", "recording", "--out", "same", "--mode", "frozen")
    said = await terminal.type("compare", "same", "--recording", "recording", "--fail-if", "errors > 5%")
    assert (said.code, said.rows["errors"][:2]) == (1, ["0.0%", "10.0%"])
    assert "same against the recording; " in said.err
    assert "4 cases left the recording: r0, r10, r20, r30" in said.out


async def test_a_change_that_answers_some_cases_otherwise_is_found_case_by_case_and_fails(terminal: Terminal) -> None:
    changed = ("--set", "agents_md=Be brief.")
    await terminal.type("replay", "recording", "--out", "live", *changed, "--mode", "hybrid", code=0)
    rule = "pass_rate(exact) < baseline - 0.02"
    arguments = ("compare", "live", "--recording", "recording", "--eval", "exact", "--eval", "tools", "--out", "report")
    said = await terminal.type(*arguments, "--fail-if", rule)
    assert (said.code, said.rows["exact"][:2]) == (1, ["100.0% [91.2%, 100.0%]", "90.0% [76.9%, 96.0%]"])
    document = json.loads((terminal.home / "report" / "report.json").read_text())
    worse = {one["evaluator"]["name"]: set(one["worse"]) for one in document["evaluators"]}
    assert worse == {"exact": CHANGED, "tools": set(), "errors": set()}
    suites = {one.get("name"): one for one in parse(terminal.home / "report" / "junit.xml").getroot()}
    assert (suites["exact"].get("failures"), suites["rules"].get("failures")) == ("4", "1")
    assert "<del>answer</del>" in (terminal.home / "report" / "report.html").read_text()
    for option, why in (("--out", "is no directory"), ("--html", "is a directory")):
        taken = terminal.home / ("report/junit.xml" if option == "--out" else "report")
        refused = await terminal.type("compare", "live", "--recording", "recording", option, str(taken))
        assert (refused.code, refused.out, why in refused.err) == (2, "", True), refused.err
    # A pipe that nobody reads takes the lines, and not the verdict.
    told = await unread(terminal, *arguments, "--fail-if", rule)
    assert (told.code, told.err.count("\n")) == (1, 1), told.err
    # Four of forty could be chance: at 95 % it takes five that all went one way.
    assert (await terminal.type(*arguments, "--fail-if", RULE)).code == 0


async def test_what_cannot_be_judged_ends_with_2_and_one_line(terminal: Terminal) -> None:
    await terminal.type("replay", "recording", "--out", "few", "--mode", "frozen", "--max-runs", "4")
    few = await terminal.type("compare", "few", "--recording", "recording", "--fail-if", RULE, "--max-left-out", "1")
    assert (few.code, "fewer than 5" in few.out) == (2, True)
    lacking = await terminal.type("compare", "few", "--recording", "recording", "--fail-if", RULE)
    assert (lacking.code, "36 of 40 cases" in lacking.out) == (2, True)

    write(terminal.home / "another", (await record_scripted(Case(parameters=scripted("x"))))[:1])
    for arguments, why in (
        (("compare", "few", "--recording", "another"), "few: is a replay of another recording, recording"),
        (("compare", "few", "--recording", "nowhere"), "nowhere: no such directory"),
        (("compare", "recording", "--recording", "recording"), "not the manifest of a replay"),
        (("compare", "few", "--recording", "recording", "--fail-if", "speed > 1"), "character 1: found `speed`"),
        (("compare", "few", "--recording", "recording", "--eval", "nothing"), "--eval nothing: unknown"),
        (("compare", "few", "--recording", "recording", "--out", "/dev/null/report"), "cannot write: [Errno 20]"),
    ):
        said = await terminal.type(*arguments)
        assert (said.code, said.out) == (2, ""), said
        assert why in said.err
        assert said.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
async def test_a_disk_that_is_full_is_no_change_that_failed(terminal: Terminal) -> None:
    await terminal.type("replay", "recording", "--out", "few", "--mode", "frozen", "--max-runs", "4")
    command = f"exec {sys.executable} -m agentstream.infra.cli compare few --recording recording > /dev/full"
    process = await asyncio.create_subprocess_shell(command, cwd=terminal.home, stderr=asyncio.subprocess.PIPE)
    _, err = await process.communicate()
    assert (process.returncode, "cannot write: [Errno 28]" in err.decode()) == (2, True)


async def test_what_the_guide_shows_works_as_it_stands(terminal: Terminal) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "replay.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    (source,) = (text for language, text in blocks if language == "python" and "ReplayManifest(" in text)
    (function,) = (text for language, text in blocks if language == "python" and "def polite" in text)
    (rules,) = (text for language, text in blocks if language == "toml")
    (job,) = (text for language, text in blocks if language == "yaml")
    for name, text in (("program.py", source), ("my_evaluators.py", function), ("judge.toml", rules)):
        (terminal.home / name).write_text(text, encoding="utf-8")
    (terminal.home / "recording").rename(terminal.home / "yesterday")
    async with terminal.python("program.py") as program:
        played = await ended(program)
    assert (played.code, played.out[:3]) == (0, f"{CASES} "), played.err
    (judge,) = re.findall(r"agentstream (compare changed [^#\n]*)", job)
    (terminal.home / "yesterday").rename(terminal.home / "recording")
    (terminal.home / "replayed").rename(terminal.home / "changed")
    said = await terminal.type(*judge.split())
    assert said.code in (0, 1), said.err
    assert {"tools", "polite", "errors"} == set(said.rows) - {"evaluator"}


async def test_a_replay_with_repeats_is_a_baseline_that_shows_its_own_noise(terminal: Terminal) -> None:
    await terminal.type("replay", "recording", "--out", "twice", "--mode", "frozen", "--repeat", "2")
    await terminal.type("replay", "recording", "--out", "live", "--mode", "hybrid")
    said = await terminal.type("compare", "live", "--recording", "recording", "--baseline", "twice", "--eval", "exact")
    assert (said.code, said.rows["exact"][-1]) == (0, "0.0% change")
    assert "live against twice" in said.err


async def test_outcomes_go_to_their_topic_under_the_keys_of_their_sessions_and_are_spans(
    terminal: Terminal, cluster: Cluster, receiver: OtlpReceiver
) -> None:
    await terminal.type("replay", "recording", "--out", "same", "--mode", "frozen")
    said = await terminal.type(
        *("compare", "same", "--recording", "recording", "--eval", "exact", "--publish"),
        variables={**at(cluster), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint},
    )
    assert (said.code, "160 evaluations published" in said.err) == (0, True), said.err
    assert sum(span.name == "evaluate exact" for span in receiver.spans) == 2 * CASES
    assert len({span.trace_id for span in receiver.spans}) == 1
    read = await evaluations(cluster)
    assert len(read) == 4 * CASES
    passed = {(one.side, one.name): 0 for one in read}
    for one in read:
        passed[one.side, one.name] += one.score_label == "pass"
    assert passed == {
        ("baseline", "exact"): CASES,
        ("candidate", "exact"): CASES - len(CHANGED),
        ("baseline", "errors"): 0,
        ("candidate", "errors"): 0,
    }
    lost = await terminal.type(
        *("compare", "same", "--recording", "recording", "--eval", "exact", "--publish"),
        variables={**at(cluster), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    )
    assert (lost.code, "spans are lost on the way to http://127.0.0.1:1/v1/traces: 161 of 161" in lost.err) == (0, True)


async def test_an_evaluator_that_fails_on_every_answer_has_judged_nothing(terminal: Terminal) -> None:
    (terminal.home / "boom.py").write_text(
        "def boom(answer):\n    print('a word')\n    raise RuntimeError('boom')\n", encoding="utf-8"
    )
    await terminal.type("replay", "recording", "--out", "changed", "--mode", "hybrid")
    said = await terminal.type(
        "compare", "changed", "--recording", "recording", "--eval", "boom:boom", "--eval", "exact"
    )
    assert (said.code, said.rows["exact"][-2]) == (2, str(CASES)), "and the rest went on"
    assert "boom failed on every answer: it judged nothing" in said.err
    assert ("a word" in said.out, said.err.count("a word")) == (False, 2 * CASES)
    assert f"boom: failed on {2 * CASES} answers, which are not counted; the first: RuntimeError: boom" in said.out
