"""`agentstream capture` and `recording show` as an operator types them, killed and stopped where it hurts."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentstream.consumers.replay.recording.files import RecordingReader
from tests.integration.test_cli import Done, Terminal
from tests.support.captures import made_up_runs
from tests.support.cluster import Cluster, cluster_of
from tests.support.waiting import patience

RUNS = 1_200
STEPS = ("requests", "results", "events", "runs")


@pytest.fixture
async def full(engine_kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give topics with more than one fetch brings, in each of two partitions."""
    async with cluster_of(engine_kafka, topics, partitions=2) as one:
        await made_up_runs(one, RUNS, partitions=2, records=3, padding=500)
        yield one


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path) -> Terminal:
    return terminal_of(cluster, tmp_path)


def terminal_of(cluster: Cluster, home: Path) -> Terminal:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
    }
    return Terminal(home=home, variables=variables)


async def interrupted(terminal: Terminal, step: str, times: int, number: signal.Signals, *arguments: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.interrupted_capture", step, str(times), str(int(number)), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=terminal.environment,
    )
    async with patience():
        out, err = await process.communicate()
    return Done(code=process.returncode or 0, out=out.decode(), err=err.decode())


def lines(directory: Path) -> bytes:
    return (directory / "runs-00001.jsonl").read_bytes()


async def test_killed_in_every_step_and_resumed_it_is_the_recording_it_would_have_been(
    full: Cluster, tmp_path: Path
) -> None:
    terminal = terminal_of(full, tmp_path)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    rule = ("--redact-pattern", "^word")
    done = await terminal.type("capture", str(whole), *rule)
    assert (done.code, done.err) == (0, "")
    for step in STEPS:
        resumed = ("--resume",) if torn.exists() else rule
        killed = await interrupted(terminal, step, 1, signal.SIGKILL, "capture", str(torn), *resumed)
        assert killed.code == -signal.SIGKILL, killed.err
        shown = await terminal.type("recording", "show", str(torn))
        assert (shown.code, "the capture is unfinished" in shown.err) == (2, True)
    with (torn / "runs-00001.jsonl").open("ab") as file:
        file.write(lines(whole)[-300:-20])
    again = await terminal.type("capture", str(torn), *rule)
    assert (again.code, "--resume goes on with it" in again.err) == (2, True)
    other = await terminal.type("capture", str(torn), "--resume", "--status", "failed")
    assert (other.code, "begun with other options" in other.err) == (2, True)
    done = await terminal.type("capture", str(torn), "--resume", "--json")
    assert (done.code, done.err) == (0, "")
    assert lines(torn) == lines(whole)
    expected = RecordingReader.open(whole).manifest.model_dump(mode="json", exclude_none=True)
    times = {"created_at", "finished_at"}
    assert {name: value for name, value in json.loads(done.out).items() if name not in times} == {
        name: value for name, value in expected.items() if name not in times
    }
    assert sorted(path.name for path in torn.iterdir()) == ["manifest.json", "runs-00001.jsonl"]
    runs = list(RecordingReader.open(torn))
    assert len(runs) == len({run.run_id for run in runs}) == RUNS
    assert {(run.turn, len(run.events), run.gaps) for run in runs} == {(turn, 6, ()) for turn in range(4)}


async def test_ctrl_c_says_how_to_go_on(full: Cluster, tmp_path: Path) -> None:
    terminal, directory = terminal_of(full, tmp_path), tmp_path / "recording"
    stopped = await interrupted(terminal, "events", 1, signal.SIGINT, "capture", str(directory), "--since", "1h")
    assert stopped.code == 130, stopped.err
    assert f"agentstream capture {directory} --resume" in stopped.err
    assert "Traceback" not in stopped.err
    done = await terminal.type("capture", str(directory), "--resume", "--since", "1h")
    assert (done.code, done.err) == (0, "")
    assert RecordingReader.open(directory).manifest.runs == RUNS


async def test_where_there_is_nothing_to_read_nothing_is_left(cluster: Cluster, tmp_path: Path) -> None:
    terminal = Terminal(home=tmp_path, variables={"KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers})
    done = await terminal.type("capture", "recording")
    assert (done.code, "no such topic: agent.invoke-requests" in done.err, done.err.count("\n")) == (3, True, 1)
    assert not (tmp_path / "recording").exists()


async def test_what_cannot_be_captured_is_said_in_one_line(
    terminal: Terminal, cluster: Cluster, tmp_path: Path
) -> None:
    directory = tmp_path / "recording"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    await cluster.submit("run")
    wrong: list[tuple[tuple[str, ...], str]] = [
        ((str(directory), "--since", "yesterday"), "--since yesterday: must be like"),
        ((str(directory), "--since", "1h", "--until", "2h"), "--until must be later"),
        ((str(directory), "--status", "done"), "--status done: there is no such one (completed, failed"),
        ((str(directory), "--code", "odd"), "--code odd"),
        ((str(directory), "--metadata", "team"), "must be key=value"),
        ((str(directory), "--from-offset", "7"), "must be PARTITION:OFFSET"),
        ((str(directory), "--redact-pattern", "("), "no regular expression"),
        ((str(directory), "--redact-pattern", "x*"), "matches the empty text"),
        ((str(directory), "--redact-path", "$..["), "no JSONPath"),
        ((str(directory), "--session", "nobody"), "nothing matches: 1 offsets of"),
        ((str(directory), "--import", "cases.jsonl", "--since", "2h"), "--import takes all cases of the file"),
        ((str(directory), "--resume"), "there is nothing to resume"),
        ((str(foreign),), "is not empty, and holds no recording"),
        ((str(foreign), "--force"), "is not empty, and holds no recording"),
    ]
    for arguments, why in wrong:
        done = await terminal.type("capture", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (arguments, done)
        assert why in done.err
        assert not directory.exists()
    assert (foreign / "thesis.txt").read_text() == "mine"
    done = await terminal.type("capture", str(directory), "--redact-path", "$.request.messages")
    assert (done.code, "without which it is no run" in done.err) == (2, True), done.err
    done = await terminal.type("capture", str(directory))
    assert (done.code, "(1 unfinished)" in done.out) == (0, True)
    assert "no result when the capture looked" in done.out
    done = await terminal.type("capture", str(directory))
    assert (done.code, "--force writes over it" in done.err) == (2, True)
    assert (await terminal.type("capture", str(directory), "--force")).code == 0
    shown = await terminal.type("recording", "show", str(directory), "--runs")
    assert shown.out.split("\t")[:4] == ["run", "run", "0", "unfinished"]
