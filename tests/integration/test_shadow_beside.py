"""Production with a shadow beside it: not delayed, not changed, whatever happens to the shadow."""

import json
import signal
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.coordinator import GroupCoordinator
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.infra.topics import every_topic
from agentstream.schemas.requests import InvokeRequest
from tests.chaos.log import Line, read_topic
from tests.integration.shadow_fixtures import asking, candidate, counts, production, terminal_at
from tests.support.cluster import Cluster, cluster_of
from tests.support.commands import ended
from tests.support.history import Commit
from tests.support.waiting import eventually

RUNS = 12
ENOUGH = 3
EACH_TIME_ANEW = frozenset(
    {"attempt_id", "claim", "trace_id", "requested_at", "started_at", "ended_at", "topic", "duration_ms"}
)
"""What differs between any two runs of the same request."""


async def test_a_shadow_that_hangs_or_is_killed_goes_on_where_it_stood_and_production_sees_nothing_of_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    run_ids = [f"r{number}" for number in range(RUNS)]
    terminal = terminal_at(cluster, tmp_path)
    options = ("--concurrency", "1", *candidate(delay_ms=100))
    async with terminal.following(*options) as process:
        process.send_signal(signal.SIGSTOP)
        await production(cluster, *run_ids[:-2])
        alone = await everything(cluster)
        process.send_signal(signal.SIGCONT)
        await eventually(
            lambda: ENOUGH <= len(terminal.shadowed()) < terminal.recorded(), "some are played, one is under way"
        )
        process.kill()
        await process.wait()
    assert await everything(cluster) == alone
    before = terminal.shadowed()
    assert ENOUGH <= len(before) < RUNS - 2
    await production(cluster, *run_ids[-2:])
    alone = await everything(cluster)
    results = await read_topic(cluster.bootstrap_servers, cluster.topics.assistant_messages)
    async with terminal.following(*options) as process:
        # Not only played: a round is compared, and then committed.
        await cluster.until_group_reached(terminal.group, cluster.topics.assistant_messages, results[-1].offset + 1)
        process.send_signal(signal.SIGINT)
        said = await ended(process)
    assert said.code == 0, said.err
    assert counts(said)["exact"] == ["0", "0", str(RUNS)]
    assert await everything(cluster) == alone
    after = terminal.shadowed()
    assert after[: len(before)] == before
    assert sorted(run.run_id for run in after) == sorted(run_ids), "none is played twice"
    assert sorted(run.run_id for run in RecordingReader.open(tmp_path / "out" / "recording")) == sorted(run_ids)
    # All that Kafka got of it: the offsets of a group of its own. Its runs have names of their own, too.
    assert {(run.result.run_id, run.result.session_id) for run in after} == {
        (f"{terminal.prefix}{run_id}", f"{terminal.prefix}s-{run_id}") for run_id in run_ids
    }
    async with GroupCoordinator(cluster.connection, terminal.group) as own:
        reached = (await own.committed(cluster.topics.assistant_messages, 0)).offset
        assert (await own.committed(cluster.topics.invoke_requests, 0)).offset == -1
    assert reached == results[-1].offset + 1
    arguments = ("compare", "out/replay", "--recording", "out/recording", "--fail-if", "pass_rate(exact) < 1")
    await terminal.type(*arguments, "--eval", "exact", code=0)


async def everything(cluster: Cluster) -> tuple[dict[str, list[Line]], list[Commit]]:
    """Every committed record of every topic, with its bytes, and every offset that the workers' group committed."""
    names = every_topic(cluster.topics)
    return {name: await read_topic(cluster.bootstrap_servers, name) for name in names}, await cluster.history()


def asked() -> list[InvokeRequest]:
    """Runs that answer, use a tool, are tried again, and fail."""
    options: list[dict[str, JsonValue]] = [{}, {"tools": []}, {"fail_attempts": 1}, {"error": "provider_auth"}]
    return [asking(f"r{number}", **options[number % len(options)]) for number in range(RUNS)]


async def test_results_and_commits_of_production_are_the_same_with_and_without_a_shadow(
    engine_kafka: str, topics: str, tmp_path: Path
) -> None:
    async with cluster_of(engine_kafka, f"{topics}without.") as without:
        await production(without, *asked())
        alone = await produced(without)
    async with cluster_of(engine_kafka, f"{topics}with.") as beside:
        terminal = terminal_at(beside, tmp_path)
        async with terminal.following("--max-runs", str(RUNS), *candidate(text="another")) as process:
            await production(beside, *asked())
            said = await ended(process)
        assert said.code == 0, said.err
        assert len(terminal.shadowed()) == RUNS
        assert await produced(beside) == alone


async def produced(cluster: Cluster) -> dict[str, list[str]]:
    """What came of each request, and how it was committed, without what is new in each run of the same."""
    topics = cluster.topics
    found = {}
    for name in (topics.assistant_messages, topics.finished_runs, topics.dead_letters, topics.control):
        lines = await read_topic(cluster.bootstrap_servers, name)
        found[name.removeprefix(topics.prefix)] = sorted(
            f"{line.key} {json.dumps(lasting(line.body), sort_keys=True)}" for line in lines
        )
    # How many results share a transaction is a matter of milliseconds, and so is the number of commits.
    last = (await cluster.history())[-1]
    found["offsets"] = [str(last.offset), str(replace(last.state, claim=0, owner="", commit=0))]
    return found


def lasting(value: object) -> object:
    if isinstance(value, dict):
        return {name: lasting(inner) for name, inner in value.items() if name not in EACH_TIME_ANEW}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value
