"""A new version is rolled out under load: three workers are replaced one after the other."""

from collections import defaultdict
from pathlib import Path

from tests.chaos.audit import Log, read_log, violations
from tests.chaos.fleet import Fleet, fleet_of

PARTITIONS = 8
RUNS = 300
SESSIONS = 60
LONG_RUNS = 3
LONG_MS = 400
LONG_WORDS = 20
"""8 s: four times the fleet's grace period. The others take 0.1 s."""


def repeated(log: Log) -> dict[str, int]:
    """Runs that were started more than once, and how often: by their `run.started` under different attempts."""
    starts: dict[str, set[str]] = defaultdict(set)
    for line in log.deltas:
        record = line.body
        if any(event["type"] == "run.started" for event in record["events"]):
            starts[record["run_id"]].add(record["attempt_id"])
    return {run_id: len(attempts) for run_id, attempts in starts.items() if len(attempts) > 1}


async def replace_one(fleet: Fleet, number: int) -> None:
    """As a rollout does: the new one first, then SIGTERM for the old one, which ends by itself."""
    await fleet.start_worker()
    await fleet.stop_worker(number)
    assert await fleet.workers[number].wait() == 0


async def test_a_rolling_restart_loses_nothing_and_repeats_little(kafka: str, topics: str, tmp_path: Path) -> None:
    async with (
        fleet_of(kafka, topics, tmp_path, workers=3, partitions=PARTITIONS) as fleet,
        fleet.results() as results,
    ):
        submitted = await fleet.submit(RUNS // 2, sessions=SESSIONS)
        long = await fleet.submit(LONG_RUNS, sessions=LONG_RUNS, delay_ms=LONG_MS, words=LONG_WORDS)
        await results.until(20)
        await replace_one(fleet, 0)
        submitted += await fleet.submit(RUNS // 2, sessions=SESSIONS)
        await replace_one(fleet, 1)
        await replace_one(fleet, 2)
        await results.until(RUNS + LONG_RUNS)
        for number in range(3, len(fleet.workers)):
            await fleet.stop_worker(number)
            assert await fleet.workers[number].wait() == 0
    log = await read_log(kafka, fleet.topics, fleet.group_id)
    assert violations(log, [request.run_id for request in submitted + long]) == []
    assert len(log.results) == RUNS + LONG_RUNS
    twice = repeated(log)
    print(f"rolling restart: {len(log.results)} runs, {len(twice)} of them repeated: {twice}")  # noqa: T201
    # A run that is under way while its partition moves to a newcomer is repeated however short it is: how many that are
    # depends on the machine (none on an idle one), so it is reported and not asserted.
    assert len(set(twice) - {request.run_id for request in long}) < RUNS // 4
    # Nobody died: what is repeated was given back, and counts as no crash.
    assert sum(line.body["crashes"] for line in log.results) <= len(twice)
