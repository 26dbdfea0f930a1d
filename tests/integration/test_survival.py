"""Worst days, in short: workers killed, stopped, joining and leaving, and a broker killed, with 200 runs under way."""

import signal
from pathlib import Path

import pytest

from agentstream.producers.requests import Submitted
from tests.chaos.audit import read_log, violations
from tests.chaos.fleet import Fleet, fleet_of
from tests.conftest import PrivateKafka

PARTITIONS = 8
RUNS = 200
SESSIONS = 40


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Path) -> Fleet:  # type: ignore[misc]
    async with fleet_of(kafka, topics, tmp_path, workers=3, partitions=PARTITIONS) as three:
        yield three


async def stop_all(fleet: Fleet) -> None:
    """SIGTERM, so that what is committed at the end is what a clean stop leaves."""
    for number, worker in enumerate(fleet.workers):
        if worker.returncode is None:
            await fleet.stop_worker(number)
    for worker in fleet.workers:
        await worker.wait()


async def check(fleet: Fleet, submitted: list[Submitted]) -> None:
    await stop_all(fleet)
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    assert violations(log, [request.run_id for request in submitted]) == []
    assert len(log.results) == len(submitted)


async def test_a_worker_killed_with_200_runs_under_way_loses_and_repeats_no_result(fleet: Fleet) -> None:
    async with fleet.results() as results:
        submitted = await fleet.submit(RUNS, sessions=SESSIONS)
        await results.until(20)
        fleet.workers[0].kill()
        await results.until(RUNS)
    await check(fleet, submitted)


async def test_a_worker_stopped_past_its_session_and_woken_repeats_no_result(fleet: Fleet) -> None:
    async with fleet.results() as results:
        submitted = await fleet.submit(RUNS, sessions=SESSIONS)
        await results.until(20)
        fleet.workers[0].send_signal(signal.SIGSTOP)
        # All 200 can only be there once the others took the stopped worker's partitions over.
        await results.until(RUNS)
        more = await fleet.submit(RUNS, sessions=SESSIONS)
        fleet.workers[0].send_signal(signal.SIGCONT)
        await results.until(2 * RUNS)
    await check(fleet, submitted + more)


async def test_workers_that_join_and_leave_under_load_repeat_no_result(fleet: Fleet) -> None:
    async with fleet.results() as results:
        submitted = await fleet.submit(RUNS, sessions=SESSIONS)
        await results.until(20)
        await fleet.start_worker()
        await results.until(60)
        await fleet.stop_worker(1)
        await results.until(100)
        await fleet.start_worker()
        await fleet.stop_worker(2)
        await results.until(RUNS)
    await check(fleet, submitted)
    assert [worker.returncode for worker in fleet.workers] == [0] * 5


async def test_a_broker_killed_and_restarted_under_load_loses_and_repeats_no_result(
    private_kafka: PrivateKafka, topics: str, tmp_path: Path
) -> None:
    broker = await private_kafka()
    async with fleet_of(broker.bootstrap_servers, topics, tmp_path, workers=2, partitions=PARTITIONS) as fleet:
        async with fleet.results() as results:
            submitted = await fleet.submit(RUNS, sessions=SESSIONS)
            await results.until(20)
            await broker.kill()
            await broker.restart()
            more = await fleet.submit(RUNS, sessions=SESSIONS)
            await results.until(2 * RUNS)
        await check(fleet, submitted + more)


async def test_the_checker_is_not_blind(fleet: Fleet) -> None:
    """A checker that cannot fail proves nothing: it must notice a result that is repeated, and one that is missing."""
    async with fleet.results() as results:
        submitted = await fleet.submit(5, sessions=5)
        await results.until(5)
    await stop_all(fleet)
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    ids = [request.run_id for request in submitted]
    assert violations(log, ids) == []
    assert violations(log, [*ids, "another"]) == ["run another has no result"]
    log.results.append(log.results[0])
    twice = f"run {log.results[0].body['run_id']} has 2 results"
    assert any(found.startswith(twice) for found in violations(log, ids))
    log.deltas.pop(0)
    assert any("comes where 0 should" in found for found in violations(log, ids))
