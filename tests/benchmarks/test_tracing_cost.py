"""What tracing costs: a backlog through one worker without spans, with all of them exported, to a collector that hangs.

Through a real Kafka, from requests on a topic to results on a topic, as a worker is used. Its runs do nothing: a
scripted one takes 0.4 ms, and makes eight spans as one does that calls a model for a minute. So this is the
worst case. The worker, the collector and the broker are processes of their own, and share the machine.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from tests.benchmarks.backlog import Worked, backlog
from tests.benchmarks.collector import Collector, collector
from tests.benchmarks.frame import report

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

PARTITIONS = 4
RUNS = 6_000
"""Of 1,500 nearly all stood in the first transactions: 6,437 runs/s from first to last, at 0.5 ms each."""
ROUNDS = 3
SPANS = 8
"""Of a run: `process`, `invoke_agent`, two turns of a `chat` each, a tool, one `send`."""
OPTIONS: dict[str, JsonValue] = {
    "text": "one two three four five six",
    "tools": [{"name": "read", "arguments": {"path": "a"}, "result": "b"}],
}
WANTED = {"exported": 75, "hanging": 70}
"""Percent of the throughput without spans, on a machine that has two cores for it: shown, since others may use them."""
MOST_BUSY = 1.3
"""Cores. A worker is one thread and a little: a rate that keeps more of them busy is measured wrongly."""


@dataclass(kw_only=True)
class Stage:
    """Where backlogs are worked off, each on topics of its own."""

    kafka: str
    prefix: str
    home: Path
    done: int = 0

    async def work_off(self, runs: int, variables: dict[str, str]) -> Worked:
        """So many runs, by a worker of their own; each is of a session of its own."""
        self.done += 1
        prefix = f"{self.prefix}{self.done}."
        async with backlog(self.kafka, prefix, self.home, partitions=PARTITIONS) as requests:
            requests.variables.update(AGENTSTREAM_TOOLS="read", OTEL_SDK_DISABLED="false", **variables)
            choice = HarnessChoice(kind="scripted", options=OPTIONS)
            parameters = AgentParameters(harness=choice, tools=("read",))
            asked = InvokeRequest(messages=(Message.of_text("user", "hi"),), parameters=parameters)
            await requests.send([asked] * runs)
            return await requests.by_worker()


def exporting_to(place: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": place.endpoint, "OTEL_METRICS_EXPORTER": "none"}


def run_us(worked: Worked, start_ms: float) -> float:
    """Processor time for one of them, the worker's start taken off."""
    return 1_000 * (worked.life_ms - start_ms) / RUNS


@pytest.mark.timeout(900)
async def test_what_tracing_costs(kafka: str, topics: str, tmp_path: Path) -> None:
    stage = Stage(kafka=kafka, prefix=topics, home=tmp_path)
    with collector() as takes, collector(hang=True) as hangs, report("cost of tracing") as page:
        ways: dict[str, dict[str, str]] = {
            "none": {},
            "exported": {**exporting_to(takes), "OTEL_BSP_MAX_QUEUE_SIZE": str(SPANS * RUNS)},
            "hanging": exporting_to(hangs),
        }
        starts = {way: (await stage.work_off(1, variables)).life_ms for way, variables in ways.items()}
        worked: dict[str, list[Worked]] = {way: [] for way in ways}
        # In turns: another process on this machine would else weigh on one of them alone.
        for _ in range(ROUNDS):
            for way, variables in ways.items():
                worked[way].append(await stage.work_off(RUNS, variables))
        rates = {way: max(each.per_second for each in found) for way, found in worked.items()}
        cpu_us = {way: min(run_us(each, starts[way]) for each in found) for way, found in worked.items()}
        busy = {
            way: max(each.per_second * run_us(each, starts[way]) / 1e6 for each in found)
            for way, found in worked.items()
        }
        for way in ways:
            page.figure(f"spans {way}", "runs/s", rates[way])
            page.figure(f"spans {way}, the worker's processor time for a run", "µs", cpu_us[way])
            page.figure(f"spans {way}, cores that both together keep busy, at most", "", busy[way])
        for way, wanted in WANTED.items():
            page.figure(f"spans {way}, of the throughput (wanted: {wanted})", "%", 100 * rates[way] / rates["none"])
            page.figure(f"spans {way}, by processor time alone", "%", 100 * cpu_us["none"] / cpu_us[way])
        arrived = await asyncio.to_thread(lambda: takes.spans)
        page.figure("spans exported that arrived", "%", 100 * arrived / (SPANS * (RUNS * ROUNDS + 1)))
    # Dropped ones cost nothing: the figures hold for a worker that loses none.
    assert arrived == SPANS * (RUNS * ROUNDS + 1)
    assert max(busy.values()) < MOST_BUSY
