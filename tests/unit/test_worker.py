"""Whole workers in virtual time over a made-up Kafka: what becomes of requests when commits do not go as they should.

The same over a real Kafka is in tests/integration.
"""

import asyncio

import pytest

from agentstream.consumers.metadata import OpenOffset
from agentstream.producers.errors import Interrupted, Refused
from tests.support.acting import until, with_worker
from tests.support.made_up_kafka import INTERRUPTED, Fault, World, runs


def test_every_request_has_one_result_and_sessions_keep_their_order() -> None:
    async def scenario(world: World) -> None:
        for number in range(200):
            world.log.request(f"session {number % 7}", delay_ms=number % 3)
        world.source.assign(0)
        await until(lambda: len(world.log.results) == 200)
        await asyncio.sleep(0.1)
        assert (world.intake.held, world.intake.held_bytes) == (0, 0)
        (partition,) = world.worker.partitions
        assert partition.claim is not None
        assert partition.claim._known._running == {}

    world = with_worker(scenario)
    offsets = [int(run_id.removeprefix("run-")) for run_id in runs(world.log.results)]
    assert sorted(offsets) == list(range(200))
    for session in range(7):
        of_session = [offset for offset in offsets if offset % 7 == session]
        assert of_session == sorted(of_session)
    assert world.log.state.offset == 200
    assert {result.deltas for result in world.log.results} == {"complete"}


def test_a_full_worker_reads_on_as_soon_as_a_commit_makes_room() -> None:
    # It did at its next poll, which waits for half a second where nothing may be fetched: with 1,024 requests held,
    # 2,000 runs a second were the most that one partition could have.
    async def scenario(world: World) -> None:
        for number in range(8):
            world.log.request(f"session {number}", delay_ms=50)
        world.source.assign(0)
        await until(lambda: world.intake.full)
        polled_at = world.worker.polled_at
        assert world.source.flowing == set()
        await until(lambda: not world.intake.full)
        assert world.source.flowing == {0}
        assert world.worker.polled_at == polled_at

    with_worker(scenario, max_held=8)


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_commit_in_doubt_is_neither_lost_nor_written_twice(count: int, *, applied: bool) -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: world.log.committed.metadata != "")
        world.log.faults += [Fault(INTERRUPTED, applied=applied)] * count
        for number in range(10):
            world.log.request(f"session {number}")
        await until(lambda: len(world.log.results) >= 10 and world.log.committed.offset == 10)

    world = with_worker(scenario)
    assert sorted(runs(world.log.results)) == sorted(f"run-{number}" for number in range(10))


def test_a_started_mark_whose_commit_failed_is_committed_all_the_same() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: world.log.committed.metadata != "")
        world.log.faults.append(Fault(Interrupted("gone", in_doubt=False)))
        world.log.request(delay_ms=60_000)
        await until(lambda: not world.log.faults)
        await asyncio.sleep(1)
        assert world.log.state.open == {0: OpenOffset(started=True)}

    with_worker(scenario)


def test_a_result_that_the_brokers_refuse_becomes_its_fallback_and_its_neighbours_do_not() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: world.log.committed.metadata != "")
        world.log.faults += [Fault(Refused("too large"))] * 3
        world.log.request()
        await until(lambda: len(world.log.results) == 1)
        world.log.request()
        await until(lambda: len(world.log.results) == 2)

    results = with_worker(scenario).log.results
    assert [result.error and result.error.code for result in results] == ["output_too_large", None]


def test_a_result_whose_very_fallback_is_refused_is_tried_ever_more_slowly_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A topic's limit was set below 16 KiB: a new producer and a warning ten times a second, for ever, and the results
    # of all other sessions of the partition behind it.
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: world.log.committed.metadata != "")
        world.log.refuse.add("run-0")
        world.log.request("large")
        await asyncio.sleep(600)
        assert 50 < world.log.epoch < 80, "a minute has six attempts"
        world.log.request("small")
        await until(lambda: runs(world.log.results) == ["run-1"])
        (partition,) = world.worker.partitions
        assert "offset 0" in (partition.closed_because or "")
        world.log.refuse.clear()
        await until(lambda: runs(world.log.results) == ["run-1", "run-0"])
        assert partition.closed_because is None

    with_worker(scenario)
    assert sum("cannot go on" in line.getMessage() for line in caplog.records) == 1
    assert sum(line.levelname == "WARNING" for line in caplog.records) < 10


def test_bad_and_repeated_requests_do_not_hold_the_others_up() -> None:
    async def scenario(world: World) -> None:
        world.log.append(b"not json")
        world.log.request(run_id="same")
        world.log.request(run_id="same")
        world.log.append(b'{"id":"named","messages":[]}')
        world.log.request()
        world.source.assign(0)
        await until(lambda: world.log.committed.offset == 5)

    log = with_worker(scenario).log
    assert sorted(runs(log.results)) == ["named", "run-4", "same"]
    # The repeated request differs in nothing but its position, so it is no conflict.
    assert log.dead_letters == 2


def test_holes_at_the_end_of_a_log_are_committed_past() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        world.log.request()
        await until(lambda: len(world.log.results) == 1)
        world.log.hole()
        await until(lambda: world.log.committed.offset == 2)

    with_worker(scenario)
