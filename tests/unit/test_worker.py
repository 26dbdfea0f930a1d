"""Whole workers in virtual time over a made-up Kafka: what becomes of requests when partitions, commits and stops do
not go as they should. The same over a real Kafka is in tests/integration."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from agentstream.consumers.coordinator import Standing
from agentstream.consumers.metadata import CommitState, OpenOffset
from agentstream.producers.errors import Interrupted, Refused
from tests.support.made_up_kafka import INTERRUPTED, Fault, World, runs
from tests.virtual_time import in_virtual_time

Scenario = Callable[[World], Coroutine[object, object, None]]


def nothing(_world: World) -> None:
    """As it comes."""


def with_worker(
    scenario: Scenario, *, partitions: int = 1, slots: int = 8, prepare: Callable[[World], None] = nothing
) -> World:
    """Play a scenario against a worker that serves, then stop it; everything must be over then."""

    async def play() -> World:
        world = World(partitions=partitions, slots=slots)
        prepare(world)
        serving = asyncio.create_task(world.serve())
        await asyncio.sleep(0)
        acting = asyncio.create_task(scenario(world))
        await asyncio.wait({serving, acting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        await acting
        world.stop.set()
        await serving
        assert (world.intake.held, world.intake.held_bytes) == (0, 0)
        assert {log.open_writers for log in world.logs.values()} == {0}
        assert world.deltas._attempts == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return world

    return in_virtual_time(play())


async def until(done: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


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


def test_a_partition_that_is_lost_ends_its_runs_and_the_next_owner_finds_them_open() -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.log.request(f"session {number}", delay_ms=60_000)
        world.source.assign(0)
        await until(lambda: len(world.log.state.open) == 3 and world.log.state.open[0].started)
        world.source.assign()
        await until(lambda: world.intake.held == 0)
        assert world.log.results == []
        world.source.assign(0)
        # The owner of before is another one now: its started runs count as lost with it.
        await until(
            lambda: world.log.state.open == {number: OpenOffset(started=True, strikes=1) for number in range(3)}
        )

    with_worker(scenario, slots=3)


def test_a_kept_partition_is_not_read_before_a_transaction_proved_it_ours() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        world.source.assign(0)
        assert world.source.flowing == set()
        commits = world.log.state.commit
        await until(lambda: 0 in world.source.flowing)
        assert world.log.state.commit == commits + 1
        assert world.log.epoch == 1, "the present producer proved it"

    with_worker(scenario)


def test_a_kept_partition_stays_unread_as_long_as_nothing_proves_it_ours() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        world.standing = None
        world.log.faults.append(Fault(INTERRUPTED))
        world.source.assign(0)
        world.log.request()
        await asyncio.sleep(60)
        assert (world.source.flowing, world.log.results) == (set(), [])
        world.standing = Standing.MEMBER
        await until(lambda: len(world.log.results) == 1)

    with_worker(scenario)


def test_a_partition_is_not_acquired_before_the_group_answers() -> None:
    async def scenario(world: World) -> None:
        world.standing = Standing.REBALANCING
        world.source.assign(0)
        await asyncio.sleep(60)
        assert world.log.epoch == 0
        world.standing = Standing.MEMBER
        await until(lambda: 0 in world.source.flowing)

    with_worker(scenario)


def test_a_partition_lost_and_found_again_waits_for_its_old_self_to_end() -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=60_000)
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)
        world.source.assign()
        world.source.assign(0)
        world.source.assign()
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()) == OpenOffset(started=True, strikes=1))

    with_worker(scenario)


def test_holes_at_the_end_of_a_log_are_committed_past() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        world.log.request()
        await until(lambda: len(world.log.results) == 1)
        world.log.hole()
        await until(lambda: world.log.committed.offset == 2)

    with_worker(scenario)


def test_a_quiet_hour_is_no_gap() -> None:
    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        await asyncio.sleep(3_600)
        world.standing = None
        world.log.request()
        await until(lambda: len(world.log.results) == 1)

    with_worker(scenario)


def test_a_kept_partition_that_was_elsewhere_drops_its_runs_and_repeats_nothing_of_the_other_owner() -> None:
    async def scenario(world: World) -> None:
        for number in range(2):
            world.log.request(f"session {number}", delay_ms=5_000)
        world.source.assign(0)
        world.log.request("session 0", delay_ms=100_000)
        await until(lambda: len(world.log.state.open) == 3)
        # For a generation it belonged to another, who finished the first and began the second.
        other = CommitState(
            offset=1, next_offset=2, open={1: OpenOffset(started=True)}, claim=world.log.state.claim + 5, owner="other"
        )
        world.log.left_behind(other)
        at = asyncio.get_running_loop().time()
        world.source.assign(0)
        await until(lambda: len(world.log.results) == 1)
        assert asyncio.get_running_loop().time() - at < 10, "nobody waits for runs that are of no more use"
        assert (world.log.committed.offset, world.log.state.claim > other.claim) == (2, True)

    world = with_worker(scenario)
    assert runs(world.log.results) == ["run-1"]
    assert world.log.results[0].crashes == 1


@pytest.mark.parametrize("standing", [Standing.REBALANCING, None])
def test_a_fenced_worker_opens_no_writer_before_the_group_answers(standing: Standing | None) -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=1_000)
        world.source.assign(0)
        await until(lambda: world.log.state.open != {})
        world.standing = standing
        world.log.left_behind(CommitState(offset=0, next_offset=0, claim=10**6, owner="the live owner"))
        epoch = world.log.epoch
        await asyncio.sleep(600)
        assert world.log.epoch == epoch, "it would have fenced the live owner"
        world.source.assign()
        await asyncio.sleep(60)
        assert (world.log.epoch, world.log.results) == (epoch, [])

    with_worker(scenario)


def test_a_worker_that_stops_lets_runs_finish_and_gives_its_partition_back() -> None:
    async def scenario(world: World) -> None:
        world.log.request("a", delay_ms=5_000)
        world.log.request("a")
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)

    log = with_worker(scenario).log
    assert runs(log.results) == ["run-0"], "the second one had not begun"
    assert (log.state.released, log.state.open) == (True, {1: OpenOffset()})


def test_a_run_that_waits_for_a_slot_does_not_begin_in_a_worker_that_stops() -> None:
    async def scenario(world: World) -> None:
        world.log.request("a", delay_ms=5_000)
        world.log.request("b")
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)

    log = with_worker(scenario, slots=1).log
    assert (runs(log.results), log.state.open) == (["run-0"], {1: OpenOffset()})


def test_runs_that_outlive_the_grace_are_left_to_the_next_owner_without_a_strike() -> None:
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=100_000)
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)

    log = with_worker(scenario).log
    assert (log.results, log.state.released, log.state.open) == ([], True, {0: OpenOffset()})


def test_a_partition_assigned_to_a_worker_that_stops_is_not_begun() -> None:
    # Workers that leave together hand each other their partitions; one that was begun here outlived the stop for ever.
    async def scenario(world: World) -> None:
        world.log.request(delay_ms=5_000)
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)
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
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)
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
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()).started)
        world.stop.set()
        await asyncio.sleep(1)
        world.source.late = [world.log.request()]
        world.source._positions[0] = 2
        await asyncio.sleep(2)

    log = with_worker(scenario).log
    assert (runs(log.results), log.state.offset, log.state.next_offset) == (["run-0"], 1, 1)


def test_more_open_requests_than_a_partition_may_hold_are_worked_off_by_the_next_owner() -> None:
    # The new owner's claim was full from its first moment: nothing was read, so nothing finished.
    def prepare(world: World) -> None:
        for number in range(2_400):
            world.log.request(f"session {number}")
        entries = {offset: OpenOffset() for offset in range(2_400)}
        world.log.left_behind(CommitState(offset=0, next_offset=2_400, open=entries, claim=7, owner="other"))

    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: world.log.committed.offset == 2_400)

    assert len(with_worker(scenario, prepare=prepare).log.results) == 2_400


def test_an_input_made_anew_under_an_old_index_stays_closed_instead_of_losing_requests() -> None:
    # Kafka forgets the offsets of a topic that is deleted; the index knows offsets of the old one, and said of every
    # new request that it was finished long ago.
    async def scenario(world: World) -> None:
        for _ in range(5):
            world.log.request()
        world.source.assign(0)
        await until(lambda: world.log.committed.offset == 5)
        world.source.assign()
        await asyncio.sleep(1)
        world.log.committed = type(world.log.committed)(offset=-1, metadata="")
        world.log.requests.clear()
        world.log.request()
        world.source.assign(0)
        await asyncio.sleep(30)
        (partition,) = world.worker.partitions
        assert "made anew" in (partition.closed_because or "")
        world.log.index.clear()
        await until(lambda: len(world.log.results) == 6)

    with_worker(scenario)


def test_a_group_that_lost_its_offsets_runs_nothing_twice_and_commits_where_it_stands() -> None:
    async def scenario(world: World) -> None:
        world.log.append(b"not json")
        for _ in range(5):
            world.log.request()
        world.source.assign(0)
        await until(lambda: world.log.committed.offset == 6)
        world.source.assign()
        await asyncio.sleep(1)
        world.log.committed = type(world.log.committed)(offset=-1, metadata="")
        world.source.assign(0)
        await until(lambda: world.log.committed.offset == 6)

    log = with_worker(scenario).log
    assert (len(log.results), log.dead_letters) == (5, 1)
