"""What tracing costs: a backlog through one worker without spans, with all of them exported, to a collector that hangs.

Through a real Kafka, from requests on a topic to results on a topic, as a worker is used. Its runs do nothing: a
scripted one takes half a millisecond, and makes eight spans as one does that calls a model for a minute. So this is the
worst case. The worker, the collector and the broker are processes of their own, and share the machine.
"""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

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
SPANS = 8
"""Of a run: `process`, `invoke_agent`, two turns of a `chat` each, a tool, one `send`."""
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


@dataclass(frozen=True, kw_only=True)
class Worked:
    """A backlog that was worked off."""

    runs: int
    """So many."""
    rate: float
    """Runs a second, from the first result's time on the log to the last one's; 0 for one run."""
    cpu_us: float
    """Processor time of the worker's whole life in microseconds, all its threads, the last export included."""


@dataclass(kw_only=True)
class Stage:
    """Where a backlog is worked off."""

    cluster: Cluster
    home: Path
    sent: int = 0

    async def backlog(self, runs: int) -> None:
        """Put requests on the topic while no worker runs, each of a session of its own."""
        choice = HarnessChoice(kind="scripted", options=OPTIONS)
        for _ in range(runs):
            parameters = AgentParameters(harness=choice, tools=("read",))
            message = Message.of_text("user", "hi")
            await self.cluster.send(InvokeRequest(messages=(message,), parameters=parameters))
        self.sent += runs

    async def work_off(self, runs: int, variables: dict[str, str]) -> Worked:
        """By a worker of its own."""
        await self.backlog(runs)
        done = self.cluster.tail.of("assistant_messages")
        before, cpu_us = len(done), _children_us()
        terminal = Terminal(home=self.home, variables={**self._variables(), **variables})
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", "worker"),
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self.home,
            env=terminal.environment,
        )
        try:
            await eventually(lambda: len(done) == self.sent, "all runs have a result")
        finally:
            worker.terminate()
            await worker.wait()
        times = [record.timestamp_ms for record in self.cluster.tail.of("assistant_messages")[before:]]
        spent = max(times) - min(times)
        return Worked(runs=runs, rate=runs / spent * 1_000 if spent else 0, cpu_us=_children_us() - cpu_us)

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


def _children_us() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e6 * (used.ru_utime + used.ru_stime)


def exporting_to(place: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": place.endpoint, "OTEL_METRICS_EXPORTER": "none"}


@pytest.mark.timeout(900)
async def test_what_tracing_costs(cluster: Cluster, tmp_path: Path) -> None:
    stage = Stage(cluster=cluster, home=tmp_path)
    with collector() as takes, collector(hang=True) as hangs, report("cost of tracing") as page:
        ways: dict[str, dict[str, str]] = {
            "none": {},
            "exported": {**exporting_to(takes), "OTEL_BSP_MAX_QUEUE_SIZE": str(SPANS * RUNS)},
            "hanging": exporting_to(hangs),
        }
        starts = {way: (await stage.work_off(1, variables)).cpu_us for way, variables in ways.items()}
        worked: dict[str, list[Worked]] = {way: [] for way in ways}
        # In turns: another process on this machine would else weigh on one of them alone.
        for _ in range(ROUNDS):
            for way, variables in ways.items():
                worked[way].append(await stage.work_off(RUNS, variables))
        rates = {way: max(each.rate for each in found) for way, found in worked.items()}
        cpu_us = {way: min((each.cpu_us - starts[way]) / RUNS for each in found) for way, found in worked.items()}
        for way in ways:
            page.figure(f"spans {way}", "runs/s", rates[way])
            page.figure(f"spans {way}, the worker's processor time for a run", "µs", cpu_us[way])
        for way, wanted in WANTED.items():
            page.figure(f"spans {way}, of the throughput (wanted: {wanted})", "%", 100 * rates[way] / rates["none"])
            page.figure(f"spans {way}, by processor time alone", "%", 100 * cpu_us["none"] / cpu_us[way])
        arrived = await asyncio.to_thread(lambda: takes.spans)
        page.figure("spans exported that arrived", "%", 100 * arrived / (SPANS * (RUNS * ROUNDS + 1)))
    # Dropped ones cost nothing: the figures hold for a worker that loses none.
    assert arrived == SPANS * (RUNS * ROUNDS + 1)
