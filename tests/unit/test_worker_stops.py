"""Whole workers in virtual time: what becomes of runs and partitions when a worker is told to stop."""

import asyncio

import pytest

from agentstream.consumers.metadata import OpenOffset
from tests.support.acting import first_run_started, until, with_worker
from tests.support.made_up_kafka import INTERRUPTED, Fault, World, runs
from tests.virtual_time import in_virtual_time


def test_a_worker_that_stops_lets_runs_finish_and_gives_its_partition_back() -> None:
    async def scenario(world: World) -> None:
        world.log.request("a", delay_ms=5_000)
        world.log.request("a")
        await first_run_started(world)

    log = with_worker(scenario).log
    assert runs(log.results) == ["run-0"], "the second one had not begun"
    assert (log.state.released, log.state.open) == (True, {1: OpenOffset()})


def test_a_run_that_waits_for_a_slot_does_not_begin_in_a_worker_that_stops() -> None:
    async def scenario(world: World) -> None:
        world.log.request("a", delay_ms=5_000)
        world.log.request("b")
        await first_run_started(world)

    log = with_worker(scenario, slots=1).log
    assert (runs(log.results), log.state.open) == (["run-0"], {1: OpenOffset()})


def test_runs_that_outlive_the_grace_are_left_to_the_next_owner_without_a_strike() -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=100_000)
        await first_run_started(world)

    log = with_worker(scenario).log
    assert (log.results, log.state.released, log.state.open) == ([], True, {0: OpenOffset()})


def test_a_partition_assigned_to_a_worker_that_stops_is_not_begun() -> None:
    # Workers that leave together hand each other their partitions; one that was begun here outlived the stop for ever.
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=5_000)
        await first_run_started(world)
        world.stop.set()
        await asyncio.sleep(1)
        world.source.assign(0, 1)
        await asyncio.sleep(1)
        assert world.logs[1].epoch == 0

    world = with_worker(scenario, partitions=2)
    assert runs(world.log.results) == ["run-0"]


def test_a_partition_lost_while_it_is_released_does_not_hold_the_stop_up() -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=5_000)
        await first_run_started(world)
        world.stop.set()
        await asyncio.sleep(1)
        world.source.assign()
        stopped = asyncio.get_running_loop().time()
        await until(lambda: world.source.membership == (-1, ""))
        assert asyncio.get_running_loop().time() - stopped < 3

    assert with_worker(scenario).log.results == []


def test_a_worker_ends_even_if_nothing_can_be_committed_any_more() -> None:
    # With the brokers away a result waits for its commit for ever.
    async def scenario(world: World) -> None:
        world.log.request()
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        world.standing = None
        world.log.faults += [Fault(INTERRUPTED)] * 1_000
        await asyncio.sleep(5)
        world.stop.set()
        await asyncio.sleep(60)
        assert world.source.membership == (-1, "")

    log = with_worker(scenario).log
    assert (log.results, log.state.released) == ([], False)


def test_what_is_still_handed_out_to_a_worker_that_stops_is_left_to_the_next_one() -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=5_000)
        await first_run_started(world)
        world.stop.set()
        await asyncio.sleep(1)
        world.source.late = [world.log.request()]
        world.source._positions[0] = 2
        await asyncio.sleep(2)

    log = with_worker(scenario).log
    assert (runs(log.results), log.state.offset, log.state.next_offset) == (["run-0"], 1, 1)


def test_a_partition_that_ends_without_being_told_to_ends_the_worker_aloud() -> None:
    # aiokafka cancelled a fetch of its own while it stopped, and the task group took that for our doing: the partition
    # stayed paused for ever, in a worker that looked alive.
    async def play() -> None:
        world = World()
        world.index_error = asyncio.CancelledError()
        serving = asyncio.create_task(world.serve())
        await asyncio.sleep(0)
        world.source.assign(0)
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(serving, 60)
        assert "partition 0 ended by a cancellation that nobody asked for" in str(raised.value.exceptions[0])

    in_virtual_time(play())


def test_a_bug_that_ends_the_worker_is_on_its_log_with_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    # All that was left of one was a line on stderr that advised to run it again with --debug.
    async def play() -> None:
        world = World()
        world.index_error = ValueError("a bug")
        serving = asyncio.create_task(world.serve())
        await asyncio.sleep(0)
        world.source.assign(0)
        with pytest.raises(ExceptionGroup):
            await asyncio.wait_for(serving, 60)

    in_virtual_time(play())
    assert "a bug of ours ends the worker" in caplog.text
    assert "ValueError: a bug" in caplog.text
    assert "acquisition.py" in caplog.text


def test_a_partition_assigned_while_a_crash_ends_the_worker_is_not_begun() -> None:
    # The task group refuses it: its coroutine was left behind, never awaited.
    async def play() -> None:
        world = World(partitions=2)
        world.index_error = ValueError("a bug")
        begun: list[set[int]] = []

        def assigned_late(_crashed: asyncio.Task[None]) -> None:
            world.source.assign(0, 1)
            begun.append(set(world.worker._tasks))

        serving = asyncio.create_task(world.serve())
        await asyncio.sleep(0)
        world.source.assign(0)
        world.worker._tasks[0].add_done_callback(assigned_late)  # the group's own is called before
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(serving, 60)
        assert "a bug" in str(raised.value.exceptions[0])
        assert begun == [{0}]

    in_virtual_time(play())


def test_a_worker_that_stops_while_it_doubts_its_membership_asks_no_more() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        world.standing = None
        world.worker.engine.membership._doubted = True
        world.log.request()
        await until(lambda: world.intake.held == 1)
        await asyncio.sleep(1)

    # What is left behind when it has ended fails in `with_worker`.
    assert with_worker(scenario).log.results == []
