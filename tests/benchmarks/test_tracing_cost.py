"""What tracing costs: a backlog through one worker without spans, with all of them exported, to a collector that hangs.

Each run makes about ten spans. The worker is a process of its own, the collector lives in this one.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from pydantic import JsonValue

from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from tests.benchmarks.frame import report
from tests.integration.test_cli import Terminal
from tests.support.cluster import Cluster, cluster_of
from tests.support.otlp_receiver import Manner, OtlpReceiver, otlp_receiver
from tests.support.waiting import eventually

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

PARTITIONS = 4
RUNS = 1_500
ROUNDS = 3
OPTIONS: dict[str, JsonValue] = {
    "text": "one two three four five six",
    "tools": [{"name": "read", "arguments": {"path": "a"}, "result": "b"}],
}
WANTED = {"exported": 75, "hanging": 70}
"""Percent of the throughput without spans, on a machine that has two cores for it: shown, since others may use them."""


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    async with cluster_of(kafka, topics, partitions=PARTITIONS) as cluster:
        yield cluster


@dataclass(kw_only=True)
class Stage:
    """Where a backlog is worked off."""

    cluster: Cluster
    home: Path
    sent: int = 0
    cpu_ms: list[float] = field(default_factory=list)
    """Milliseconds of processor time for each run, start included, in the order of the rounds."""

    async def backlog(self) -> None:
        """Put requests on the topic while no worker runs, each of a session of its own."""
        choice = HarnessChoice(kind="scripted", options=OPTIONS)
        for _ in range(RUNS):
            parameters = AgentParameters(harness=choice, tools=("read",))
            message = Message.of_text("user", "hi")
            await self.cluster.send(InvokeRequest(messages=(message,), parameters=parameters))
        self.sent += RUNS

    async def runs_per_second(self, variables: dict[str, str]) -> float:
        """Work it off; from the first result's time on the log to the last one's."""
        await self.backlog()
        done = self.cluster.tail.of("assistant_messages")
        before = len(done)
        terminal = Terminal(home=self.home, variables={**self._variables(), **variables})
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", "worker"),
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self.home,
            env=terminal.environment,
        )
        try:
            await eventually(lambda: len(done) == self.sent, "all runs have a result")
            used = psutil.Process(worker.pid).cpu_times()
            self.cpu_ms.append(1_000 * (used.user + used.system) / RUNS)
        finally:
            worker.terminate()
            await worker.wait()
        times = [record.timestamp_ms for record in self.cluster.tail.of("assistant_messages")[before:]]
        return RUNS / (max(times) - min(times)) * 1_000

    def _variables(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.cluster.bootstrap_servers,
            "AGENTSTREAM_TOPIC_PREFIX": self.cluster.topics.prefix,
            "AGENTSTREAM_GROUP_ID": self.cluster.group_id,
            "AGENTSTREAM_HARNESSES": "scripted",
            "AGENTSTREAM_TOOLS": "read",
            "AGENTSTREAM_LOG_LEVEL": "warning",
            "OTEL_SDK_DISABLED": "false",
        }


def exporting_to(receiver: OtlpReceiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_METRICS_EXPORTER": "none"}


@pytest.mark.timeout(900)
async def test_what_tracing_costs(cluster: Cluster, tmp_path: Path) -> None:
    stage = Stage(cluster=cluster, home=tmp_path)
    rates: dict[str, list[float]] = {"none": [], "exported": [], "hanging": []}
    with otlp_receiver() as receiver, otlp_receiver() as hanging, report("cost of tracing") as page:
        receiver.reads, hanging.manner = False, Manner(hang=True)
        # In turns: another process on this machine would else weigh on one of them alone.
        for _ in range(ROUNDS):
            rates["none"].append(await stage.runs_per_second({}))
            rates["exported"].append(await stage.runs_per_second(exporting_to(receiver)))
            rates["hanging"].append(await stage.runs_per_second(exporting_to(hanging)))
        for number, name in enumerate(rates):
            page.figure(f"spans {name}, processor time for a run", "ms", min(stage.cpu_ms[number::3]))
        for name, found in rates.items():
            page.figure(f"spans {name}", "runs/s", max(found))
        for name, wanted in WANTED.items():
            ratio = 100 * max(rates[name]) / max(rates["none"])
            page.figure(f"spans {name}, of the throughput without (wanted: {wanted})", "%", ratio)
    assert all(rate > 0 for found in rates.values() for rate in found)
