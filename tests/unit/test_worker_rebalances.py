"""Whole workers in virtual time: partitions that come, go, stay, and come back from elsewhere."""

import asyncio

import pytest

from agentstream.consumers.coordinator import Standing
from agentstream.consumers.metadata import CommitState, OpenOffset
from tests.support.acting import first_run_started, until, with_worker
from tests.support.made_up_kafka import INTERRUPTED, Fault, World, runs


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


def test_an_idle_partition_that_moves_is_given_back_and_its_next_owner_takes_nothing_over() -> None:
    """Each planned restart of a quiet fleet was counted as workers that vanish."""

    async def scenario(world: World) -> None:
        world.source.assign(0)
        await until(lambda: 0 in world.source.flowing)
        before = world.log.state
        await world.worker.revoked()
        given_back = world.log.state
        assert (before.released, given_back.released) == (False, True)
        world.source.assign(0)
        await until(lambda: not world.log.state.released)

    with_worker(scenario)


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


def test_a_kept_partition_starts_nothing_before_a_transaction_proved_it_ours() -> None:
    """A zombie that woke ran what another worker had finished while it slept."""

    async def scenario(world: World) -> None:
        world.log.request("a", delay_ms=1_000)
        world.log.request("b", run_id="waits")
        world.source.assign(0)
        await until(lambda: runs_under_way(world) == ["run-0"])
        world.standing = None
        world.log.faults.append(Fault(INTERRUPTED))
        world.source.assign(0)
        await asyncio.sleep(60)
        assert runs_under_way(world) == ["run-0"], "it has ended, and its result cannot be committed yet"
        world.standing = Standing.MEMBER
        await until(lambda: len(world.log.results) == 2)

    with_worker(scenario, slots=1)


def runs_under_way(world: World) -> list[str]:
    claims = [partition.claim for partition in world.worker.partitions]
    return [run_id for claim in claims if claim is not None for run_id, _, _ in claim.under_way()]


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
        await first_run_started(world)
        world.source.assign()
        world.source.assign(0)
        world.source.assign()
        world.source.assign(0)
        await until(lambda: world.log.state.open.get(0, OpenOffset()) == OpenOffset(started=True, strikes=1))

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
