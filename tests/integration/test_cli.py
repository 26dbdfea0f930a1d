"""The command line as a user types it: processes of their own against a real Kafka."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agentstream.consumers.readers import Read, TopicReader
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics
from tests.architecture.sources import ROOT
from tests.support.waiting import patience


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str


@dataclass(kw_only=True)
class Terminal:
    """A directory and an environment to type commands in."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        ours = ("AGENTSTREAM_", "KAFKA_", "OPENAI_", "ANTHROPIC_", "XDG_RUNTIME_DIR", "COV_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return inherited | {"XDG_RUNTIME_DIR": str(self.home)} | dict(self.variables)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.home,
            env=self.environment,
            limit=1 << 20,
        )

    async def type(self, *arguments: str, stdin: str = "") -> Done:
        process = await self.start(*arguments)
        async with patience():
            out, err = await process.communicate(stdin.encode())
        return Done(code=process.returncode or 0, out=out.decode(), err=err.decode())

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker that has joined; killed at the end if it still lives."""
        process = await self.start("worker")
        try:
            await until_said(process.stderr, "worker started")
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def until_said(stream: asyncio.StreamReader | None, words: str) -> str:
    """Read lines until one holds these words."""
    assert stream is not None
    said = ""
    async with patience():
        while words not in said:
            line = await stream.readline()
            assert line, f"it ended without a word of {words!r}:\n{said}"
            said += line.decode()
    return said


def scripted_worker(kafka: str, prefix: str) -> dict[str, str]:
    """What a worker with the scripted harness is told, and whoever types commands beside it: quick timeouts."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "AGENTSTREAM_TOPIC_PREFIX": prefix,
        "AGENTSTREAM_GROUP_ID": f"{prefix}workers",
        "AGENTSTREAM_HARNESSES": "scripted",
        "AGENTSTREAM_SESSION_TIMEOUT_MS": "6000",
        "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "500",
    }


@pytest.fixture
def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    return Terminal(home=tmp_path, variables=scripted_worker(kafka, topics))


@pytest.fixture(params=["asyncio", "uvloop"])
def either(request: pytest.FixtureRequest, terminal: Terminal) -> Terminal:
    """A terminal whose worker runs on one event loop, then on the other."""
    return replace(terminal, variables={**terminal.variables, "AGENTSTREAM_EVENT_LOOP": request.param})


def scripted(**options: object) -> list[str]:
    return [word for name, value in options.items() for word in ("--set", f"harness.options.{name}={value}")] + [
        "--harness",
        "scripted",
    ]


async def test_from_topics_to_a_result(terminal: Terminal) -> None:
    planned = await terminal.type("topics", "plan", "--partitions", "2")
    assert (planned.code, planned.out.count("would create")) == (0, 7)
    applied = json.loads((await terminal.type("topics", "apply", "--partitions", "2", "--json")).out)
    assert [step["do"] for step in applied["steps"]] == ["create"] * 7
    refused = await terminal.type("topics", "apply", "--partitions", "3")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--yes" in refused.err
    async with terminal.worker():
        answered = await terminal.type("invoke", "hi", *scripted(text="Hello there"))
        # A pipe gets the answer and nothing else, so that `$(agentstream invoke …)` is the answer.
        assert (answered.code, answered.out) == (0, "Hello there\n")
        assert "completed" in answered.err
        lines = [
            json.loads(line)
            for line in (await terminal.type("invoke", "hi", "--json", *scripted(text="a b"))).out.splitlines()
        ]
        assert lines[0]["event"]["type"] == "run.started"
        assert lines[-1]["result"]["status"] == "completed"
        asked = await terminal.type("invoke", "-", "--session", "s1", *scripted(text="ok"), stdin="from stdin")
        assert asked.code == 0
        assert "session s1" in asked.err


async def test_a_run_that_fails_is_exit_code_one_with_its_reason(terminal: Terminal) -> None:
    await terminal.type("topics", "apply", "--partitions", "1")
    async with terminal.worker():
        failed = await terminal.type("invoke", "hi", *scripted(error="max_turns"))
        assert (failed.code, failed.out) == (1, "")
        assert "max_turns" in failed.err
        refused = await terminal.type("invoke", "hi", "--harness", "nonsense")
        assert refused.code == 1
        assert "unknown_harness" in refused.err
        late = await terminal.type("invoke", "hi", "--timeout", "1", *scripted(hang="before_first"))
        assert late.code == 4
        assert "it goes on" in late.err


async def test_no_wait_says_where_the_request_lies(terminal: Terminal, topics: str) -> None:
    await terminal.type("topics", "apply", "--partitions", "1")
    sent = await terminal.type("invoke", "hi", "--no-wait", "--json", "--session", "s9")
    submitted = json.loads(sent.out)["submitted"]
    assert (submitted["topic"], submitted["partition"], submitted["offset"]) == (f"{topics}invoke-requests", 0, 0)
    assert submitted["session_id"] == "s9"


async def test_a_worker_that_is_told_to_stop_finishes_what_it_started(either: Terminal) -> None:
    await either.type("topics", "apply", "--partitions", "1")
    async with either.worker() as worker:
        asking = await either.start("invoke", "hi", *scripted(text="one two three four five six", delay_ms=200))
        await until_said(worker.stderr, "run started")
        worker.terminate()
        out, _ = await asking.communicate()
        assert (asking.returncode, out) == (0, b"one two three four five six\n")
        async with patience():
            assert await worker.wait() == 0


async def test_a_worker_may_be_bound_to_whoever_started_it(either: Terminal) -> None:
    # Workers of a demo that was killed with -9 went on looking for its broker for ever.
    await either.type("topics", "apply", "--partitions", "1")
    worker = await either.start("worker", "--stop-at-eof")
    try:
        said = (await until_said(worker.stderr, "worker started")).splitlines()[-1]
        assert json.loads(said)["event_loop"] == either.variables["AGENTSTREAM_EVENT_LOOP"]
        assert worker.stdin is not None
        worker.stdin.close()
        async with patience():
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.communicate()


async def test_a_second_signal_ends_a_worker_at_once(either: Terminal) -> None:
    await either.type("topics", "apply", "--partitions", "1")
    async with either.worker() as worker:
        await either.type("invoke", "hi", "--no-wait", *scripted(hang="before_first"))
        await until_said(worker.stderr, "run started")
        worker.send_signal(signal.SIGINT)
        await until_said(worker.stderr, "once more ends at once")
        worker.send_signal(signal.SIGINT)
        async with patience():
            assert await worker.wait() == 130


async def test_what_is_missing_is_one_line_with_what_to_do(terminal: Terminal) -> None:
    without_topics = await terminal.type("worker")
    assert without_topics.code == 3
    assert "agentstream topics apply" in without_topics.err.splitlines()[-1]
    assert (await terminal.type("invoke", "hi")).code == 3
    cancelled = await terminal.type("cancel", "x")
    assert (cancelled.code, "control, or this user may not see it" in cancelled.err) == (3, True), cancelled.err
    nowhere = Terminal(home=terminal.home, variables={**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    for command in (["worker"], ["topics", "plan"], ["invoke", "hi", "--timeout", "5"]):
        done = await nowhere.type(*command)
        assert done.code == 3, done
        assert "Traceback" not in done.err
    unconfigured = Terminal(home=terminal.home)
    done = await unconfigured.type("invoke", "hi")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "KAFKA_BOOTSTRAP_SERVERS" in done.err


async def test_a_secret_of_the_settings_leaves_the_worker_by_no_door(terminal: Terminal, topics: str) -> None:
    canary = "sk-canary-0123456789-abcdef"
    terminal.variables = {**terminal.variables, "OPENAI_API_KEY": canary, "AGENTSTREAM_LOG_LEVEL": "debug"}
    await terminal.type("topics", "apply", "--partitions", "1")
    async with terminal.worker() as worker:
        # An agent that has found the key says it: streamed in pieces, as an error, and as the name of what it wants.
        asked: list[list[str]] = [
            scripted(text=f"the key is {canary} and {canary}"),
            ["--harness", canary],
            ["--set", f"harness.options.{canary}=1", "--harness", "scripted"],
        ]
        shown = [await terminal.type("invoke", "hi", "--json", *words) for words in asked]
        assert [done.code for done in shown] == [0, 1, 1]
        assert "[redacted]" in shown[0].out
        worker.terminate()
        out, err = await worker.communicate()
    for text in (*(done.out + done.err for done in shown), out.decode(), err.decode()):
        assert canary not in text
    names = Topics(prefix=topics)
    for topic in names.outputs:
        reader = TopicReader[Record](
            KafkaConnection(bootstrap_servers=terminal.variables["KAFKA_BOOTSTRAP_SERVERS"]),
            topic,
            lambda record: record,
            start="beginning",
            until_end=True,
        )
        async with reader:
            async for found in reader:
                assert isinstance(found, Read)
                # A dead letter is the caller's own record, byte for byte; its headers are ours.
                value = b"" if topic == names.dead_letters else found.record.value or b""
                assert canary.encode() not in value + b"".join(header or b"" for _, header in found.record.headers)


async def test_doctor_finds_what_is_broken_and_says_what_to_do(terminal: Terminal) -> None:
    await terminal.type("topics", "apply", "--partitions", "1")
    (terminal.home / "agent.json").write_text('{"tools": 7}')
    variables = {**terminal.variables, "AGENTSTREAM_AGENT_DIR": str(terminal.home), "AGENTSTREAM_TOLS": "x"}
    found = await Terminal(home=terminal.home, variables=variables).type("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(found.out)}
    assert found.code == 0
    assert checks["broker"]["verdict"] == checks["topics"]["verdict"] == checks["harness scripted"]["verdict"] == "ok"
    assert "AGENTSTREAM_TOLS" in checks["settings"]["found"]
    assert "no tools" in checks["agent files"]["advice"]
    assert all(check["advice"] for check in checks.values() if check["verdict"] != "ok")
    variables["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    broken = await Terminal(home=terminal.home, variables=variables).type("doctor")
    assert broken.code == 1
    assert "BROKEN   broker: 127.0.0.1:1 does not answer" in broken.out


async def test_another_terminal_finds_the_broker_of_dev(terminal: Terminal, topics: str) -> None:
    dev = await terminal.start("dev", "--partitions", "1")
    try:
        said = await until_said(dev.stdout, "Ctrl-C stops it.")
        assert "agentstream invoke" in said
        elsewhere = Terminal(home=terminal.home)
        answered = await elsewhere.type("invoke", "hi", *scripted(text="found"))
        assert (answered.code, answered.out) == (0, "found\n"), answered.err
        assert (
            f"{topics}invoke-requests"
            in json.loads((await elsewhere.type("invoke", "hi", "--no-wait", "--json")).out)["submitted"]["topic"]
        )
        dev.send_signal(signal.SIGINT)
        async with patience():
            await dev.communicate()
        assert dev.returncode == 0
        assert (await elsewhere.type("invoke", "hi")).code == 2
    finally:
        if dev.returncode is None:
            dev.kill()
            await dev.communicate()


async def test_the_readmes_example_runs_as_it_stands(terminal: Terminal, kafka: str, topics: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace('AgentClient("localhost:9092")', f'AgentClient("{kafka}", topic_prefix="{topics}")')
    (terminal.home / "example.py").write_text(code)
    (terminal.home / "agent.json").write_text(
        '{"harness": {"kind": "scripted", "options": {"text": "Hello from the script."}}}'
    )
    terminal.variables = {**terminal.variables, "AGENTSTREAM_AGENT_DIR": str(terminal.home)}
    await terminal.type("topics", "apply", "--partitions", "1")
    async with terminal.worker():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "example.py"), cwd=terminal.home, stdout=asyncio.subprocess.PIPE, env=terminal.environment
        )
        async with patience():
            out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.decode().startswith("Hello from the script.\n completed")
    assert out.decode().endswith("Hello from the script.\n")
