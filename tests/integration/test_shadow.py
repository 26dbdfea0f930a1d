"""A shadow beside a real worker: what it plays, what it says, that nothing of production changes, and kill -9."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.replay.playing import read_replay
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import ReplayedRun
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.audit import end_offsets
from tests.chaos.inside import plan_of, serving
from tests.support.cluster import Cluster
from tests.support.waiting import eventually, patience

TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "A"}
RUNS = 12
ENOUGH = 3


def asking(run_id: str) -> InvokeRequest:
    options: dict[str, JsonValue] = {"text": "as it was", "tools": [TOOL]}
    return InvokeRequest(
        id=run_id,
        session_id=f"s-{run_id}",
        messages=(Message.of_text("user", "go"),),
        parameters=AgentParameters.model_validate({"harness": {"kind": "scripted", "options": options}}),
    )


def candidate(**changed: JsonValue) -> tuple[str, str]:
    options: dict[str, JsonValue] = {"text": "as it was", "tools": [TOOL], **changed}
    return "--set", "harness=" + json.dumps({"kind": "scripted", "options": options})


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where the command is typed."""

    home: Path
    cluster: Cluster

    @asynccontextmanager
    async def command(self, name: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", name, *options),
            cwd=self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "AGENTSTREAM_HARNESSES": "scripted",
                "KAFKA_BOOTSTRAP_SERVERS": self.cluster.bootstrap_servers,
                "AGENTSTREAM_TOPIC_PREFIX": self.cluster.topics.prefix,
                "AGENTSTREAM_GROUP_ID": self.cluster.group_id,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @asynccontextmanager
    async def following(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A shadow that follows."""
        async with self.command("shadow", "out", *options) as process:
            assert process.stderr is not None
            async with patience():
                said = b""
                while b"following" not in said:
                    said = await process.stderr.readline()
                    assert said, process.returncode
            yield process

    def shadowed(self) -> list[ReplayedRun]:
        where = self.home / "out" / "replay"
        return list(read_replay(where)[1]) if (where / "manifest.json").exists() else []

    def recorded(self) -> int:
        return (self.home / "out" / "recording" / "runs-00001.jsonl").read_bytes().count(b"\n")

    async def offsets(self) -> dict[str, dict[int, int]]:
        topics = self.cluster.topics
        names = (topics.invoke_requests, topics.control, *topics.outputs)
        return {name: await end_offsets(self.cluster.bootstrap_servers, name) for name in names}


async def production(cluster: Cluster, *run_ids: str) -> None:
    for run_id in run_ids:
        await cluster.send(asking(run_id))
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix)):
        await cluster.tail.all_results(*run_ids)


async def test_a_changed_candidate_is_seen_in_the_sessions_of_the_sample_and_runs_no_tool(
    cluster: Cluster, tmp_path: Path
) -> None:
    run_ids = [f"r{number}" for number in range(RUNS)]
    drawn = [run_id for run_id in run_ids if Selection(sample=0.5, seed=7).draws(f"s-{run_id}")]
    assert 0 < len(drawn) < RUNS
    terminal = Terminal(home=tmp_path, cluster=cluster)
    options = ("--sample", "0.5", "--seed", "7", "--max-runs", str(len(drawn)), *candidate(text="another answer"))
    rule = "pass_rate(exact) < baseline - 0.02"
    async with terminal.following(*options, "--fail-if", rule) as process:
        await production(cluster, *run_ids)
        async with patience():
            out, err = await process.communicate()
    assert process.returncode == 1, err.decode()
    assert f"ALARM: {rule}" in err.decode()
    exact = next(line.split("\t") for line in out.decode().splitlines() if line.startswith("exact\t"))
    assert (exact[4], exact[5], exact[6]) == ("0", str(len(drawn)), str(len(drawn)))
    replayed = terminal.shadowed()
    assert sorted(run.run_id for run in replayed) == sorted(drawn)
    assert {(run.tools_from_recording, run.tools_real) for run in replayed} == {(1, 0)}


async def test_a_shadow_that_is_killed_goes_on_where_it_stood_and_production_sees_nothing_of_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    run_ids = [f"r{number}" for number in range(RUNS)]
    terminal = Terminal(home=tmp_path, cluster=cluster)
    options = ("--concurrency", "1", *candidate(delay_ms=100))
    async with terminal.following(*options) as process:
        await production(cluster, *run_ids[:-2])
        await eventually(
            lambda: ENOUGH <= len(terminal.shadowed()) < terminal.recorded(), "some are played, one is under way"
        )
        process.kill()
        await process.wait()
    before = terminal.shadowed()
    assert ENOUGH <= len(before) < RUNS - 2
    await production(cluster, *run_ids[-2:])
    offsets = await terminal.offsets()
    async with terminal.following(*options) as process:
        await eventually(lambda: len(terminal.shadowed()) == RUNS, "all runs are shadowed")
        process.send_signal(signal.SIGINT)
        async with patience():
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    exact = next(line.split("\t") for line in out.decode().splitlines() if line.startswith("exact\t"))
    assert (exact[4], exact[5], exact[6]) == ("0", "0", str(RUNS))
    assert await terminal.offsets() == offsets
    after = terminal.shadowed()
    assert after[: len(before)] == before
    assert sorted(run.run_id for run in after) == sorted(run_ids)
    assert sorted(run.run_id for run in RecordingReader.open(tmp_path / "out" / "recording")) == sorted(run_ids)
    async with terminal.command(
        "compare", "out/replay", "--recording", "out/recording", "--eval", "exact", "--fail-if", "pass_rate(exact) < 1"
    ) as process:
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def test_a_shadow_does_not_join_the_workers_group(cluster: Cluster, tmp_path: Path) -> None:
    terminal = Terminal(home=tmp_path, cluster=cluster)
    async with terminal.command("shadow", "out", "--group", cluster.group_id) as process:
        _, err = await process.communicate()
    assert process.returncode == 2
    assert "is the workers' own" in err.decode()
    assert not (tmp_path / "out").exists()
