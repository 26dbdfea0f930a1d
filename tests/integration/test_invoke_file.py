"""`agentstream invoke --file`: each request of a file has one line of results, however often it is started again."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from agentstream.consumers.readers import Read, ResultReader
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics
from tests.chaos.audit import Json
from tests.conftest import PrivateKafka
from tests.integration.cli_fixtures import scripted_terminal
from tests.integration.test_cli import Done, Terminal, until_said
from tests.support.waiting import eventually, patience

SCRIPTED = ("--harness", "scripted")

HANGING = {"harness": {"kind": "scripted", "options": {"text": "some words", "hang": "mid_text"}}}


@pytest.fixture
async def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    return await scripted_terminal(kafka, topics, tmp_path)


def written(terminal: Terminal, lines: Iterable[object], name: str = "requests.jsonl") -> str:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (terminal.home / name).write_text(text)
    return name


def results(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines()]


def numbered(found: Iterable[Json]) -> dict[int, str]:
    """The text of each line's result. Fails if a line has two."""
    lines = list(found)
    texts = {each["line"]: each["text"] for each in lines}
    assert len(texts) == len(lines), "a line has two results"
    return texts


def connection_of(terminal: Terminal) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=terminal.variables["KAFKA_BOOTSTRAP_SERVERS"])


async def runs_on_the_log(terminal: Terminal, topics: str) -> int:
    reader = ResultReader(connection_of(terminal), Topics(prefix=topics), start="beginning", until_end=True)
    async with reader:
        return len([found async for found in reader])


async def test_each_line_is_asked_and_what_is_broken_is_said_with_its_place(terminal: Terminal) -> None:
    file = written(
        terminal,
        [
            {"message": "one", "metadata": {"row": "7"}},
            '{"message": "two"',
            "",
            {"messages": [{"role": "user", "content": "hi"}], "session": "s1", "run_id": "own-id"},
            {"messages": [{"role": "nobody", "content": "hi"}]},
            {"message": "x", "parameters": {"limits": {"max_turn": 3}}},
            {"mesage": "x"},
            {"message": "six", "parameters": {"harness": {"kind": "scripted", "options": {"text": "6"}}}},
            {"message": "again", "run_id": "own-id"},
        ],
    )
    async with terminal.worker():
        done = await terminal.type("invoke", "--file", file, "--set", "metadata.batch=b", *SCRIPTED)
    assert done.code == 1, done.err
    found = {each["line"]: each for each in results(done.out)}
    assert numbered(found.values()) == {1: "You said: one", 4: "You said: hi", 8: "6"}
    assert found[1]["result"]["metadata"] == {"batch": "b", "row": "7"}
    assert (found[4]["result"]["run_id"], found[4]["result"]["session_id"]) == ("own-id", "s1")
    for line in (
        "line 2: not JSON at column 18: Expecting ',' delimiter",
        "line 5: messages.0.role: should be 'system', 'user', 'assistant' or 'tool'",
        "line 6: parameters.limits.max_turn: there is no such parameter; did you mean limits.max_turns?",
        "line 7: mesage: there is no such field; did you mean message?",
        "line 9: run_id: that of line 4; each run has its own",
    ):
        assert line in done.err.splitlines()
    assert done.err.splitlines()[-1].startswith("3 completed · 5 broken lines · ")


async def test_a_run_that_fails_is_a_result_as_well_and_exit_code_one(terminal: Terminal) -> None:
    failing = {"harness": {"kind": "scripted", "options": {"error": "max_turns"}}}
    file = written(terminal, [{"message": "a"}, {"message": "b", "parameters": failing}])
    async with terminal.worker():
        done = await terminal.type("invoke", "--file", file, *SCRIPTED)
        assert done.code == 1
        assert {each["line"]: each["result"]["status"] for each in results(done.out)} == {1: "completed", 2: "failed"}
        assert "1 completed · 1 failed" in done.err
        piped = await terminal.type("invoke", "--file", "-", *SCRIPTED, stdin='{"message": "from a pipe"}')
        assert (piped.code, numbered(results(piped.out))) == (0, {1: "You said: from a pipe"})


async def test_the_lines_of_a_session_are_asked_in_their_order(terminal: Terminal) -> None:
    lines = [{"message": f"{number}", "session": f"s{number % 2}"} for number in range(20)]
    async with terminal.worker():
        done = await terminal.type("invoke", "--file", written(terminal, lines), "--concurrency", "8", *SCRIPTED)
    assert done.code == 0, done.err
    found = results(done.out)
    assert sorted(each["line"] for each in found) == list(range(1, 21))
    for parity in (0, 1):
        runs = [each for each in found if each["line"] % 2 == parity]
        assert [each["line"] for each in runs] == list(range(parity or 2, 21, 2))
        # Sent only once the one above has ended: two that are sent at once may change places on their way.
        for before, after in pairwise(each["result"] for each in runs):
            ended = datetime.fromisoformat(before["ended_at"])
            assert datetime.fromisoformat(after["requested_at"]) >= ended - timedelta(milliseconds=1)


async def test_a_batch_that_was_killed_goes_on_where_it_was_and_no_request_has_two_results(
    terminal: Terminal, topics: str
) -> None:
    count = 40
    slow = {"harness": {"kind": "scripted", "options": {"text": "some words here", "delay_ms": 50}}}
    file = written(terminal, [{"message": f"{number}", "parameters": slow} for number in range(count)])
    output = terminal.home / "results.jsonl"
    command = ("invoke", "--file", file, "--output", "results.jsonl", "--concurrency", "4")

    def has(lines: int) -> bool:
        return output.exists() and output.read_bytes().count(b"\n") >= lines

    async with terminal.worker():
        for number, sign in ((5, signal.SIGKILL), (12, signal.SIGINT)):
            asking = await terminal.start(*command)
            await eventually(partial(has, number), f"{number} results")
            asking.send_signal(sign)
            async with patience():
                _, err = await asking.communicate()
            if sign == signal.SIGINT:
                assert asking.returncode == 130
                assert "and go on: the same command collects what is missing" in err.decode()
        # As a process that was killed in the middle of a line leaves it.
        whole = output.read_bytes()
        output.write_bytes(whole + b'{"line": 99, "text": "torn')
        done = await terminal.type(*command)
        assert done.code == 0, done.err
        again = await terminal.type(*command)
    assert sorted(numbered(results(output.read_text()))) == list(range(1, count + 1))
    assert output.read_bytes().startswith(whole)
    assert f"{len(whole.splitlines())} were there before" in done.err
    assert (again.code, f"0 completed · {count} were there before" in again.err) == (0, True)
    assert await runs_on_the_log(terminal, topics) == count, "a request was run twice"


async def test_lines_that_are_added_are_asked_and_a_new_round_asks_all_anew(terminal: Terminal, topics: str) -> None:
    file = written(terminal, [{"message": "one"}, {"message": "two"}, {"message": "one"}])
    command = ("invoke", "--file", file, *SCRIPTED)
    async with terminal.worker():
        first = results((await terminal.type(*command)).out)
        assert len({each["result"]["run_id"] for each in first}) == 3
        written(terminal, [{"message": "zero"}, {"message": "one"}, {"message": "two"}, {"message": "one"}])
        second = await terminal.type(*command)
        assert "3 of them had run before: --round NAME asks anew what has no run_id of its own" in second.err
        assert await runs_on_the_log(terminal, topics) == 4
        third = await terminal.type(*command, "--round", "monday")
        assert "had run before" not in third.err
        assert await runs_on_the_log(terminal, topics) == 8


async def test_ctrl_c_cancels_what_is_under_way_if_that_is_wanted(terminal: Terminal, topics: str) -> None:
    file = written(terminal, [{"message": "a", "run_id": f"r{number}", "parameters": HANGING} for number in range(9)])
    async with terminal.worker() as worker:
        asking = await terminal.start("invoke", "--file", file, "--concurrency", "3", "--on-interrupt", "cancel")
        for _ in range(3):
            await until_said(worker.stderr, "run started")
        asking.send_signal(signal.SIGINT)
        async with patience():
            _, err = await asking.communicate()
        assert asking.returncode == 130
        assert "interrupted; 3 runs are under way (lines 1, 2, 3); cancelling" in err.decode()
        reader = ResultReader(connection_of(terminal), Topics(prefix=topics), start="beginning")
        ended: dict[str, str] = {}
        async with patience(), reader:
            while len(ended) < 3:
                found = await anext(reader)
                assert isinstance(found, Read)
                assert isinstance(found.value, InvokeResult)
                ended[found.value.run_id] = found.value.status
    assert ended == {"r0": "cancelled", "r1": "cancelled", "r2": "cancelled"}


async def test_what_could_not_be_cancelled_because_kafka_was_away_is_named(
    private_kafka: PrivateKafka, terminal: Terminal
) -> None:
    # It said to call `agentstream cancel RUN_ID`, and of no run which id it has; and "Ctrl-C stops" after Ctrl-C.
    broker = await private_kafka()
    terminal.variables = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    assert (await terminal.type("topics", "apply", "--partitions", "1")).code == 0
    file = written(terminal, [{"message": "a", "run_id": f"r{number}", "parameters": HANGING} for number in range(7)])
    async with terminal.worker() as worker:
        asking = await terminal.start("invoke", "--file", file, "--concurrency", "7", "--on-interrupt", "cancel")
        for _ in range(7):
            await until_said(worker.stderr, "run started")
        await broker.kill()
        asking.send_signal(signal.SIGINT)
        async with patience():
            _, err = await asking.communicate()
    assert asking.returncode == 130
    said = err.decode().split("cancelling", 1)[1]
    assert "could not be cancelled and may go on: r0, r1, r2, r3, r4 and 2 more; `agentstream cancel RUN_ID`" in said
    assert "Ctrl-C" not in said


async def test_wrong_use_is_one_line(terminal: Terminal) -> None:
    file = written(terminal, [{"message": "a"}])
    written(terminal, ["these are somebody's notes"], "notes.txt")
    for arguments, words in (
        (("--file", "nowhere.jsonl"), "--file nowhere.jsonl: No such file or directory"),
        (("--file", "."), "--file .: Is a directory"),
        (("--file", file, "hello"), "--file takes no message"),
        (("--file", file, "--concurrency", "0"), "--concurrency"),
        (("--file", file, "--output", "no/such/place"), "--output no/such/place: No such file or directory"),
        (("--file", file, "--output", "notes.txt"), "line 1 is no result of `invoke --file`"),
        (("hello", "--output", "x.jsonl"), "go with --file"),
    ):
        done = await terminal.type("invoke", *arguments)
        assert (done.code, done.err.count("\n"), done.out) == (2, 1, ""), done.err
        assert words in done.err
    assert (terminal.home / "notes.txt").read_text() == "these are somebody's notes\n"
    nowhere = Terminal(home=terminal.home, variables={**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    refused = await nowhere.type("invoke", "--file", file)
    assert (refused.code, "Traceback" in refused.err) == (3, False)


async def test_a_reader_that_goes_ends_it_without_a_word(terminal: Terminal) -> None:
    # `| head -1` was "ReaderGone: (a bug: …)" and 70: what a task group raises is a group.
    slow = {"harness": {"kind": "scripted", "options": {"text": "words", "delay_ms": 50}}}
    file = written(terminal, [{"message": f"{number}", "parameters": slow} for number in range(20)])
    command = f"{sys.executable} -m agentstream.infra.cli invoke --file {file} --concurrency 1 | head -1"
    async with terminal.worker(), patience():
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-o", "pipefail", "-c", command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=terminal.home,
            env=terminal.environment,
        )
        out, err = await shell.communicate()
    assert (shell.returncode, b"agentstream:" in err) == (0, False), err
    assert [each["line"] for each in results(out.decode())] == [1]


async def test_two_processes_do_not_write_one_output(terminal: Terminal) -> None:
    file = written(terminal, [{"message": "a"}])
    command = ("invoke", "--file", file, "--output", "out.jsonl", *SCRIPTED)
    first = await terminal.start(*command)
    try:
        # It holds the file once it is there, and waits for a worker that never comes.
        await eventually((terminal.home / "out.jsonl").exists, "the output is there")
        second = Done(code=0, out="", err="")
        async with patience():
            while "another process writes to it" not in second.err:
                second = await terminal.type(*command, "--timeout", "0.1")
        assert second.code == 1
    finally:
        first.kill()
        await first.communicate()


async def test_a_terminal_shows_rate_and_time_left_on_one_line(terminal: Terminal) -> None:
    slow = {"harness": {"kind": "scripted", "options": {"text": "some words here", "delay_ms": 300}}}
    file = written(terminal, [{"message": f"{number}", "parameters": slow} for number in range(6)])
    ours, theirs = pty.openpty()
    async with terminal.worker():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", "invoke", "--file", file, "--concurrency", "1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            cwd=terminal.home,
            env={**terminal.environment, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        async with patience():
            out, _ = await process.communicate()
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:
        pass  # what Linux says at the end
    os.close(ours)
    assert process.returncode == 0
    assert len(out.splitlines()) == 6
    assert b" of 6 \xc2\xb7 1 under way \xc2\xb7 " in shown
    assert b"s left" in shown
    assert b"\r\x1b[K" in shown


async def test_a_broker_that_is_killed_costs_no_line(
    private_kafka: PrivateKafka, terminal: Terminal, topics: str
) -> None:
    broker = await private_kafka()
    terminal.variables = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    assert (await terminal.type("topics", "apply", "--partitions", "2")).code == 0
    slow = {"harness": {"kind": "scripted", "options": {"text": "some words here", "delay_ms": 50}}}
    file = written(terminal, [{"message": f"{number}", "parameters": slow} for number in range(40)])
    output = terminal.home / "results.jsonl"

    def has(lines: int) -> bool:
        return output.exists() and output.read_bytes().count(b"\n") >= lines

    async with terminal.worker():
        asking = await terminal.start("invoke", "--file", file, "--output", "results.jsonl", "--concurrency", "4")
        await eventually(partial(has, 5), "5 results")
        await broker.kill()
        await broker.restart()
        async with patience():
            _, err = await asking.communicate()
        assert asking.returncode == 0, err
    assert sorted(numbered(results(output.read_text()))) == list(range(1, 41))
    assert await runs_on_the_log(terminal, topics) == 40
