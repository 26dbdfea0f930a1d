"""What tracing costs: a backlog through one worker without spans, with all of them exported, to a collector that hangs.

Through a real Kafka, from requests on a topic to results on a topic, as a worker is used. Its runs do nothing: a
scripted one takes half a millisecond, and makes nine spans as one does that calls a model for a minute. So this is the
worst case. The worker, the collector and the broker are processes of their own, and share the machine.
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
from tests.benchmarks.collector import Collector, collector
from tests.benchmarks.frame import report
from tests.integration.test_cli import Terminal
from tests.support.cluster import Cluster, cluster_of
from tests.support.waiting import eventually

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

PARTITIONS = 4
RUNS = 1_500
ROUNDS = 3
SPANS = 9
"""Of a run: `process`, `invoke_agent`, two turns of a `chat` each, a tool, two `send`."""
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
    """Milliseconds of processor time for each run, without the worker's start, in the order of the rounds."""

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
            await eventually(lambda: len(done) > before, "the first run has a result")
            began, seen = _cpu_ms(worker.pid), len(done)
            await eventually(lambda: len(done) == self.sent, "all runs have a result")
            self.cpu_ms.append((_cpu_ms(worker.pid) - began) / (self.sent - seen))
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


def _cpu_ms(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return 1_000 * (used.user + used.system)


def exporting_to(place: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": place.endpoint, "OTEL_METRICS_EXPORTER": "none"}


@pytest.mark.timeout(900)
async def test_what_tracing_costs(cluster: Cluster, tmp_path: Path) -> None:
    stage = Stage(cluster=cluster, home=tmp_path)
    rates: dict[str, list[float]] = {"none": [], "exported": [], "hanging": []}
    with collector() as open_one, collector(hang=True) as hanging, report("cost of tracing") as page:
        # In turns: another process on this machine would else weigh on one of them alone.
        for _ in range(ROUNDS):
            rates["none"].append(await stage.runs_per_second({}))
            rates["exported"].append(await stage.runs_per_second(exporting_to(open_one)))
            rates["hanging"].append(await stage.runs_per_second(exporting_to(hanging)))
        cpu_ms = {name: min(stage.cpu_ms[number::3]) for number, name in enumerate(rates)}
        for name, found in rates.items():
            page.figure(f"spans {name}", "runs/s", max(found))
            page.figure(f"spans {name}, the worker's processor time for a run", "µs", 1_000 * cpu_ms[name])
        for name, wanted in WANTED.items():
            ratio = 100 * max(rates[name]) / max(rates["none"])
            page.figure(f"spans {name}, of the throughput without (wanted: {wanted})", "%", ratio)
            page.figure(f"spans {name}, of the processor time without", "%", 100 * cpu_ms[name] / cpu_ms["none"])
        arrived = await asyncio.to_thread(lambda: open_one.spans)
        page.figure("spans exported, that arrived", "%", 100 * arrived / (SPANS * RUNS * ROUNDS))
    assert arrived == SPANS * RUNS * ROUNDS
