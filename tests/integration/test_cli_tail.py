"""`agentstream tail`: a process of its own against a real Kafka, with outputs written by hand."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner

from agentstream.schemas.events import AnyEvent, PartDelta, PartStarted, RunEnded, RunStarted
from tests.chaos.audit import Json
from tests.integration.test_cli import Terminal, until_said
from tests.support.cluster import Cluster, cluster_of
from tests.support.outputs import Outputs, answer, outputs_of
from tests.support.runs import flush, result_of
from tests.support.waiting import patience

MINE = DefaultPartitioner()(b"session", [0, 1], [0, 1])
"""Where Kafka's default partitioner puts the session of results that are written by hand."""
OTHER = 1 - MINE


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    async with cluster_of(kafka, topics, partitions=2) as one:
        yield one


@pytest.fixture
async def outputs(cluster: Cluster) -> AsyncIterator[Outputs]:
    async with outputs_of(cluster) as one:
        yield one


@pytest.fixture
def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    return Terminal(
        home=tmp_path, variables={"KAFKA_BOOTSTRAP_SERVERS": kafka, "AGENTSTREAM_TOPIC_PREFIX": topics, "TZ": "UTC"}
    )


async def write(outputs: Outputs, *run_ids: str, partition: int = MINE) -> None:
    for run_id in run_ids:
        result = result_of(run_id=run_id, partition=partition, text=f"this is {run_id}")
        await outputs.results((result, run_id), partition=partition)


def runs(out: str) -> list[str]:
    return [line.split("\t")[3] for line in out.splitlines()]


@asynccontextmanager
async def following(terminal: Terminal, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A tail that reads what comes from now on; killed at the end if it still lives."""
    process = await terminal.start("tail", *arguments)
    try:
        await until_said(process.stderr, "following ")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def next_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with patience():
        line = await process.stdout.readline()
    assert line, "it ended"
    return line.decode()


async def test_the_last_ones_are_shown_in_the_order_of_their_times_whatever_their_partitions(
    terminal: Terminal, outputs: Outputs
) -> None:
    for number, run_id in enumerate(("a", "b", "c", "d")):
        await write(outputs, run_id, partition=number % 2)
    shown = await terminal.type("tail", "--no-follow", "-n", "3")
    assert (shown.code, runs(shown.out)) == (0, ["b", "c", "d"]), shown.err
    assert shown.out.splitlines()[-1].endswith("\tcompleted\td\tsession\tthis is d")
    everything = await terminal.type("tail", "results", "-F", "--since", "1h", "--json")
    lines = [json.loads(line) for line in everything.out.splitlines()]
    assert sorted(line["run_id"] for line in lines) == ["a", "b", "c", "d"]
    first = next(line for line in lines if line["run_id"] == "a")
    assert (first["partition"], first["offset"], first["result"]["status"]) == (0, 0, "completed")
    assert first["headers"]["ce_subject"] == "a"
    assert first["timestamp"].startswith("20")
    assert (await terminal.type("tail", "-F", "--since", "2999-01-01T00:00:00Z")).out == ""


async def test_only_what_is_asked_for_is_shown(terminal: Terminal, outputs: Outputs) -> None:
    await write(outputs, "a", "b")
    failed = result_of(run_id="f", attempt=None, partition=MINE)
    await outputs.results((failed, "f"), partition=MINE)
    # Another session's partition is not read: a record there would be shown if it were.
    await write(outputs, "elsewhere", partition=OTHER)
    by_session = await terminal.type("tail", "-F", "--session", "session")
    assert runs(by_session.out) == ["a", "b", "f"]
    assert runs((await terminal.type("tail", "-F", "--session", "session", "--partition", str(OTHER))).out) == [
        "elsewhere"
    ]
    assert runs((await terminal.type("tail", "-F", "--status", "failed")).out) == ["f"]
    assert (await terminal.type("tail", "-F", "--session", "nobody")).out == ""
    # A run has one result: with it the tail has ended, although it follows.
    of_run = await terminal.type("tail", "--run", "b")
    assert (of_run.code, runs(of_run.out)) == (0, ["b"]), of_run.err
    assert runs((await terminal.type("tail", "--max", "2", "-n", "10", "--session", "session")).out) == ["a", "b"]


async def test_it_follows_until_ctrl_c_which_is_130_and_no_error(terminal: Terminal, outputs: Outputs) -> None:
    await write(outputs, "before")
    async with following(terminal, "-n", "0") as process:
        await write(outputs, "after")
        assert "\tafter\t" in await next_line(process)
        # What is no result is shown as such, and is no end.
        await outputs.raw_results((b"nonsense", []), partition=MINE)
        assert "\tunreadable\t" in await next_line(process)
        await write(outputs, "later", partition=OTHER)
        assert "\tlater\t" in await next_line(process)
        process.send_signal(signal.SIGINT)
        async with patience():
            out, err = await process.communicate()
        assert (process.returncode, out, err) == (130, b"", b"")


async def test_an_attempt_that_is_superseded_is_said_so_and_its_late_words_are_left_out(
    terminal: Terminal, outputs: Outputs
) -> None:
    lost: list[AnyEvent] = [RunStarted(harness="scripted"), PartStarted(message_id="m", part_index=0, part_type="text")]
    words = PartDelta(message_id="m", part_index=0, part_type="text", delta="lost words")
    async with following(terminal, "deltas", "--run", "r", "--json", "-n", "0") as process:
        await outputs.stream(flush(lost, run_id="r"), MINE)
        first: Json = json.loads(await next_line(process))
        assert (first["delta"]["attempt"], first["voided"], first["gap"]) == (1, False, False)
        await outputs.stream(flush(answer("the answer")[:4], run_id="r", attempt=2), MINE)
        second: Json = json.loads(await next_line(process))
        assert (second["delta"]["attempt"], second["voided"]) == (2, True)
        # A zombie writes on, and a producer that was replaced sends again: neither says anything new.
        await outputs.stream(flush([words], run_id="r", first_seq=2), MINE)
        await outputs.stream(flush(answer("the answer")[:4], run_id="r", attempt=2), MINE)
        await outputs.stream(flush(answer("the answer")[4:], run_id="r", attempt=2, first_seq=4), MINE)
        third: Json = json.loads(await next_line(process))
        assert [event["type"] for event in third["delta"]["events"]] == ["part.ended", "message.ended", "run.ended"]
        async with patience():
            assert await process.wait() == 0  # its run has ended
    # Of what is there already nothing void is shown at all.
    shown = await terminal.type("tail", "deltas", "--run", "r")
    assert (shown.code, "lost words" in shown.out, "the answer" in shown.out) == (0, False, True), shown.err
    assert [line.split("\t")[2] for line in shown.out.splitlines()][:2] == ["run.started", "message.started"]


async def test_on_a_terminal_the_words_of_a_run_are_written_as_they_come(terminal: Terminal, outputs: Outputs) -> None:
    def delta(text: str) -> PartDelta:
        return PartDelta(message_id="m", part_index=0, part_type="text", delta=text)

    begin: list[AnyEvent] = [
        RunStarted(harness="scripted"),
        PartStarted(message_id="m", part_index=0, part_type="text"),
    ]
    await outputs.stream(flush([*begin, delta("Hello")], run_id="run-aaaaaa"), MINE)
    await outputs.stream(flush([*begin, delta("Behind")], run_id="run-bbbbbb"), MINE)
    await outputs.stream(flush([delta(" there")], run_id="run-aaaaaa", first_seq=3), MINE)
    await outputs.stream(flush([RunEnded(status="failed")], run_id="run-bbbbbb", first_seq=3), MINE)
    await outputs.stream(flush([RunEnded(status="completed")], run_id="run-aaaaaa", first_seq=4), MINE)
    # A terminal of its own: pipes get other lines.
    above, below = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.cli", "tail", "deltas", "--no-follow"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=below,
        cwd=terminal.home,
        env={**terminal.environment, "TERM": "xterm"},
    )
    os.close(below)
    async with patience():
        written = await asyncio.to_thread(_all_of, above)
        assert await process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r", "").splitlines()
    assert [line for line in lines if "▸" not in line] == [
        "aaaaaa │ Hello",
        "aaaaaa │  there",
        "bbbbbb │ Behind",
        "bbbbbb │ ■ failed",
        "aaaaaa │ ■ completed",
    ]
    assert lines[0].startswith("aaaaaa │ ▸ run run-aaaaaa · session session · scripted · ")


def _all_of(terminal: int) -> str:
    found = b""
    try:
        while piece := os.read(terminal, 65_536):
            found += piece
    except OSError:
        pass  # Linux says so when the other end is closed
    os.close(terminal)
    return found.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is not one of 'results'"),
        (["deltas", "--status", "failed"], "--status is for results"),
        (["--since", "yesterday"], "--since yesterday: must be like"),
        (["--partition", "2", "-F"], "has the partitions 0 to 1"),
        (["--max", "0"], "--max"),
        (["-n", "x"], "-n"),
    ],
)
async def test_wrong_options_are_one_line_and_two(
    terminal: Terminal, cluster: Cluster, arguments: list[str], said: str
) -> None:
    assert cluster.topics.prefix == terminal.variables["AGENTSTREAM_TOPIC_PREFIX"]
    done = await terminal.type("tail", *arguments)
    assert (done.code, done.err.count("\n"), done.out) == (2, 1, ""), done.err
    assert said in done.err


async def test_no_broker_and_no_topic_are_one_line_and_three(terminal: Terminal) -> None:
    nowhere = await terminal.type("tail")
    assert (nowhere.code, nowhere.err.count("\n")) == (3, 1), nowhere.err
    assert "assistant-messages" in nowhere.err
    assert "`agentstream topics apply`" in nowhere.err
    terminal.variables = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    gone = await terminal.type("tail", "deltas")
    assert (gone.code, gone.err.count("\n")) == (3, 1), gone.err
    assert "KAFKA_BOOTSTRAP_SERVERS" in gone.err
