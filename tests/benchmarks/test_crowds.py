"""Many at once: sessions of one partition, streams, runs in flight, partitions, workers."""

import asyncio
import json
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from pydantic import JsonValue

from agentstream.infra.worker_process import STARTED
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Record
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.benchmarks import backlog
from tests.benchmarks.backlog import WAVE
from tests.benchmarks.frame import report
from tests.benchmarks.seeing import seeing
from tests.chaos.fleet import Fleet
from tests.support.waiting import patience

pytestmark = [pytest.mark.bench, pytest.mark.kafka, pytest.mark.timeout(900)]

MIB = 1024 * 1024
WARM_UP = 4_000
"""Transactions of a broker that has just started take twice as long: its JVM compiles what they need as they come."""


def asking(session: str, run: str, options: dict[str, JsonValue]) -> InvokeRequest:
    choice = HarnessChoice(kind="scripted", options=options)
    messages = (Message.of_text("user", "hi"),)
    return InvokeRequest(id=run, session_id=session, messages=messages, parameters=AgentParameters(harness=choice))


async def submit(fleet: Fleet, requests: list[InvokeRequest], *, wave: int = WAVE) -> None:
    await backlog.submit(fleet.connection, fleet.topics, requests, wave=wave)


async def until_logged(fleet: Fleet, words: str, times: int, *, worker: int = 0) -> None:
    """Wait until a worker's log holds these words so often."""
    async with patience():
        while (fleet.logs / f"worker-{worker}.log").read_text().count(words) < times:
            await asyncio.sleep(0.02)


def outcome(record: Record) -> tuple[str, str, float, float]:
    """Session and status of a result, and when it began and ended."""
    body = json.loads(record.value or b"")
    began, ended = (datetime.fromisoformat(body[name]).timestamp() for name in ("started_at", "ended_at"))
    return body["session_id"], body["run_id"], began, ended


async def test_a_long_run_among_short_ones_of_its_partition(kafka: str, topics: str, tmp_path: Path) -> None:
    """One of 10 s among 400 of 50 ms in 20 sessions; ideally the 20 sessions go on side by side for one second.

    Worker and broker are warm, as in the figures of latency.
    """
    sessions, each, work = 20, 20, 0.05
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path)
    async with fleet.started(workers=1, partitions=1):
        await until_logged(fleet, " is ours", 1)
        results = seeing(fleet.connection, fleet.topics.assistant_messages, outcome)
        short: dict[str, JsonValue] = {"text": "two words", "delay_ms": int(1_000 * work)}
        async with results as seen:
            quick: dict[str, JsonValue] = {"text": "two words", "delay_ms": 5}
            warm_up = [asking(f"warm-up-{number % sessions}", f"warm-up-{number}", quick) for number in range(WARM_UP)]
            await submit(fleet, warm_up, wave=sessions)
            await seen.until_count(WARM_UP)
            await submit(fleet, [asking("long", "long", {"text": "two words", "delay_ms": 10_000})])
            wave = [asking(f"session-{number % sessions}", f"run-{number}", short) for number in range(sessions * each)]
            await submit(fleet, wave, wave=sessions)
            await seen.until_count(WARM_UP + sessions * each + 1)
    found = [(name, at) for name, at in seen.at.items() if isinstance(name, tuple) and name[0].startswith("session-")]
    began, visible = min(name[2] for name, _ in found), max(at for _, at in found)
    gaps = dict[str, list[tuple[float, float]]]()
    for name, _ in found:
        gaps.setdefault(name[0], []).append((name[2], name[3]))
    between = [
        1_000 * (later[0] - earlier[1])
        for runs in gaps.values()
        for earlier, later in zip(sorted(runs), sorted(runs)[1:], strict=False)
    ]
    with report("a long run among short ones") as page:
        page.figure("ideal for the 400", "s", each * work)
        page.figure("first start to last visible result of the 400", "s", visible - began)
        page.figure("of the ideal", "×", (visible - began) / (each * work), wanted="≤ 1.2")
        page.distribution("end of a run to the start of the next of its session", "ms", between)


async def bare_records(fleet: Fleet, topic: str, count: int) -> float:
    """Records a second that an idempotent producer writes, each of 350 bytes, never waiting for one."""
    async with idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES) as producer:
        began = time.monotonic()
        sent = [
            await producer.send(topic, b"x" * 350, key=b"run", partition=number % 8, headers=[("ce_id", b"x" * 36)])
            for number in range(count)
        ]
        await asyncio.gather(*sent)
        return count / (time.monotonic() - began)


def tokens(record: Record) -> tuple[str, int, int, tuple[float, ...]]:
    """The run, the place of this record within it, and when each token in it was made."""
    body = json.loads(record.value or b"")
    times = tuple(
        datetime.fromisoformat(event["time"]).timestamp() for event in body["events"] if event["type"] == "part.delta"
    )
    pieces = sum(len(event["delta"].split()) for event in body["events"] if event["type"] == "part.delta")
    return body["run_id"], body["first_seq"], pieces, times


async def streams(fleet: Fleet, name: str, *, words: int, delay_ms: int) -> tuple[list[float], float, int]:
    """Play 200 streams; give each delta's latency in ms, tokens a second, and the number of records."""
    text = " ".join(f"w{number}" for number in range(words))
    wanted = 200 * words
    async with seeing(fleet.connection, fleet.topics.stream_deltas, tokens, partitions=8) as seen:
        await submit(
            fleet,
            [asking(f"{name}-{n}", f"{name}-{n}", {"text": text, "delay_ms": delay_ms}) for n in range(200)],
        )
        async with patience():
            mine = list[tuple[tuple[str, int, int, tuple[float, ...]], float]]()
            while sum(key[2] for key, _ in mine) < wanted:
                await asyncio.sleep(0.2)
                mine = [
                    (key, at)
                    for key, at in seen.at.items()
                    if isinstance(key, tuple) and key[0].startswith(f"{name}-") and key[3]
                ]
    told = Counter[str]()
    for key, _ in mine:
        told[key[0]] += key[2]
    assert set(told.values()) == {words}, "every token is seen once"
    latencies = [1_000 * (at - made) for key, at in mine for made in key[3]]
    began, ended = min(key[3][0] for key, _ in mine), max(at for _, at in mine)
    return latencies, wanted / (ended - began), len(mine)


async def test_deltas_of_two_hundred_streams(kafka: str, topics: str, tmp_path: Path) -> None:
    environment = {"AGENTSTREAM_MAX_IN_FLIGHT": "256"}
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path, environment=environment)
    async with fleet.started(workers=1, partitions=8):
        await until_logged(fleet, " is ours", 8)
        paced, rate, records = await streams(fleet, "paced", words=500, delay_ms=20)
        _, fastest, written = await streams(fleet, "fast", words=500, delay_ms=0)
        bare = await bare_records(fleet, fleet.topics.stream_deltas, 100_000)
    with report("deltas of 200 streams") as page:
        page.distribution("a token made to seen, 50 tokens/s in each stream", "ms", paced)
        page.figure("tokens/s asked for", "tokens/s", 10_000)
        page.figure("tokens/s seen", "tokens/s", rate)
        page.figure("records written for 100,000 paced tokens", "records", records)
        page.figure("as fast as they can: tokens/s seen", "tokens/s", fastest)
        page.figure("as fast as they can: records for 100,000 tokens", "records", written)
        page.figure("bare producing of 100,000 records", "records/s", bare)
        page.figure("as fast as they can, of bare producing", "×", fastest / bare, wanted="≥ 0.5")


async def test_two_thousand_runs_in_flight(kafka: str, topics: str, tmp_path: Path) -> None:
    environment = {"AGENTSTREAM_MAX_IN_FLIGHT": "2000"}
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path, environment=environment)
    async with fleet.started(workers=1, partitions=8):
        await until_logged(fleet, " is ours", 8)
        process = psutil.Process(fleet.workers[0].pid)
        empty = process.memory_info().rss / MIB
        begun = seeing(
            fleet.connection, fleet.topics.stream_deltas, lambda record: record.key and tokens(record)[0], partitions=8
        )
        ended = seeing(
            fleet.connection, fleet.topics.assistant_messages, lambda record: outcome(record)[1], partitions=8
        )
        async with begun as starts, ended as ends:
            options: dict[str, JsonValue] = {"text": "two words", "delay_ms": 20_000}
            await submit(fleet, [asking(f"s{number}", f"r{number}", options) for number in range(2_000)])
            await starts.until_count(2_000)
            at_once = len(starts.at) - len(ends.at)
            full = process.memory_info().rss / MIB
            await ends.until_count(2_000)
    with report("2,000 runs in flight") as page:
        page.figure("at once", "runs", at_once)
        page.figure("the worker before", "MiB", empty)
        page.figure("the worker with all of them", "MiB", full, wanted="≤ 400")
        page.figure("for one run", "KiB", 1_024 * (full - empty) / at_once)
    assert at_once == 2_000


async def test_two_hundred_partitions(kafka: str, topics: str, tmp_path: Path) -> None:
    fleet = Fleet(bootstrap_servers=kafka, prefix=topics, logs=tmp_path)
    async with fleet.started(workers=1, partitions=200):
        await until_logged(fleet, STARTED, 1)
        began = time.monotonic()
        await until_logged(fleet, " is ours", 200)
        took = time.monotonic() - began
        process = psutil.Process(fleet.workers[0].pid)
        before = process.cpu_times()
        await asyncio.sleep(20)
        after = process.cpu_times()
        idle = (after.user + after.system - before.user - before.system) / 20
        memory = process.memory_info().rss / MIB
        connections = len(process.net_connections())
    with report("200 partitions in one worker") as page:
        page.figure("started to all partitions owned", "s", took)
        page.figure("idle, of one core", "%", 100 * idle)
        page.figure("memory", "MiB", memory)
        page.figure("connections to the broker", "", connections)


SCALING_SECONDS = 12


@pytest.mark.parametrize("slots", [64])
async def test_more_workers_do_more(kafka: str, topics: str, tmp_path: Path, slots: int) -> None:
    """Runs of one second each: so many slots end as many runs a second, as long as there are cores."""
    rates = dict[int, float]()
    cores = dict[int, float]()
    for workers in (1, 2, 4):
        logs = tmp_path / str(workers)
        logs.mkdir()
        fleet = Fleet(bootstrap_servers=kafka, prefix=f"{topics}{workers}.", logs=logs)
        async with fleet.started(workers=workers, partitions=16):
            options: dict[str, JsonValue] = {"text": "two words", "delay_ms": 1_000}
            count = workers * slots * (SCALING_SECONDS + 12)
            await submit(fleet, [asking(f"s{number}", f"r{number}", options) for number in range(count)])
            results = seeing(
                fleet.connection, fleet.topics.assistant_messages, lambda record: outcome(record)[1], partitions=16
            )
            async with results as seen:
                await seen.until_count(2 * workers * slots)  # all are busy
                processes = [psutil.Process(worker.pid) for worker in fleet.workers]
                used = sum(sum(process.cpu_times()[:2]) for process in processes)
                done, began = len(seen.at), time.monotonic()
                await asyncio.sleep(SCALING_SECONDS)
                seconds = time.monotonic() - began
                rates[workers] = (len(seen.at) - done) / seconds
                cores[workers] = (sum(sum(process.cpu_times()[:2]) for process in processes) - used) / seconds
    with report("more workers") as page:
        for workers, rate in rates.items():
            page.figure(f"{workers} worker{'s' * (workers > 1)}", "runs/s", rate)
            page.figure(f"{workers}: of linear", "×", rate / (workers * slots), wanted="≥ 0.9")
            page.figure(f"{workers}: cores that the workers used", "", cores[workers])
