"""Am I still a member? A made-up coordinator at its seam, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import cast

from agentstream.consumers.coordinator import CoordinatorError, GroupCoordinator, Standing
from agentstream.consumers.membership import AGAIN_SECONDS, Membership
from tests.virtual_time import in_virtual_time

SESSION_TIMEOUT = 15.0


class Coordinator:
    """Answers heartbeats as the test says."""

    def __init__(self) -> None:
        self.answers: list[Standing | CoordinatorError] = []
        self.asked: list[tuple[int, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def standing(self, generation: int, member_id: str) -> Standing:
        self.asked.append((generation, member_id))
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else Standing.MEMBER
        if isinstance(answer, CoordinatorError):
            raise answer
        return answer


class World:
    """A worker's clock, its place in the group, and the coordinator's view of it."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()
        self.identity = (3, "member")
        self.stopped_for = 0.0
        self.membership = Membership(
            cast("GroupCoordinator", self.coordinator),
            lambda: self.identity,
            session_timeout_s=SESSION_TIMEOUT,
            clock=lambda: asyncio.get_running_loop().time() + self.stopped_for,
        )

    def stop_the_process_for(self, seconds: float) -> None:
        self.stopped_for += seconds


def in_a_world(scenario: Callable[[World], Coroutine[object, object, None]]) -> None:
    async def play() -> None:
        await scenario(World())

    in_virtual_time(play())


async def begun(coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_as_long_as_time_passes_evenly_runs_begin_and_nobody_is_asked() -> None:
    async def scenario(world: World) -> None:
        for _ in range(100):
            await asyncio.sleep(SESSION_TIMEOUT / 2)
            world.membership.tick()
            await world.membership.before_a_run()
        assert (world.coordinator.asked, world.membership.gaps) == ([], 0)

    in_a_world(scenario)


def test_after_a_gap_runs_wait_until_a_heartbeat_was_answered() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.gate.clear()
        world.stop_the_process_for(SESSION_TIMEOUT / 2 + 0.001)
        # Whoever comes first sees the gap: here a run, before the poll loop ticks.
        runs = [await begun(world.membership.before_a_run()) for _ in range(3)]
        world.membership.tick()
        await asyncio.sleep(SESSION_TIMEOUT / 3)
        assert not any(run.done() for run in runs)
        assert world.coordinator.asked == [(3, "member")], "one question for all of them"
        world.coordinator.gate.set()
        await asyncio.gather(*runs)
        assert world.membership.gaps == 1
        await world.membership.before_a_run()
        assert len(world.coordinator.asked) == 1, "confirmed once, it holds until the next gap"

    in_a_world(scenario)


def test_a_gap_seen_by_the_poll_loop_holds_runs_as_well() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.gate.clear()
        world.stop_the_process_for(60)
        world.membership.tick()
        world.membership.tick()
        run = await begun(world.membership.before_a_run())
        assert not run.done()
        world.coordinator.gate.set()
        await run

    in_a_world(scenario)


def test_a_run_that_is_cancelled_while_it_waits_leaves_the_question_to_the_others() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.gate.clear()
        world.stop_the_process_for(60)
        first, second = [await begun(world.membership.before_a_run()) for _ in range(2)]
        first.cancel()
        await asyncio.sleep(1)
        assert first.cancelled()
        assert not second.done()
        world.coordinator.gate.set()
        await second
        assert len(world.coordinator.asked) == 1

    in_a_world(scenario)


def test_a_zombie_that_wakes_is_no_member_until_it_has_its_new_assignment() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.answers = [Standing.REBALANCING] * 100
        confirmed = await begun(world.membership.confirmed())
        await asyncio.sleep(2.5)
        assert not confirmed.done()
        assert len(world.coordinator.asked) == 3, "asked once a second, in case the assignment is already newer"
        # aiokafka has given its generation up: there is nothing to ask about.
        world.identity = (-1, "")
        await asyncio.sleep(10)
        assert (confirmed.done(), len(world.coordinator.asked)) == (False, 3)
        world.identity = (4, "member again")
        world.coordinator.answers = []
        at = asyncio.get_running_loop().time()
        world.membership.assignment_changed()
        await confirmed
        assert world.coordinator.asked[-1] == (4, "member again")
        assert asyncio.get_running_loop().time() == at, "whoever waits for an assignment asks at once when it comes"

    in_a_world(scenario)


def test_no_answer_is_asked_again_for_as_long_as_it_takes() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.answers = [CoordinatorError("away")] * 500
        await world.membership.confirmed()
        assert len(world.coordinator.asked) == 501
        assert round(asyncio.get_running_loop().time(), 6) == round(500 * AGAIN_SECONDS, 6)

    in_a_world(scenario)


def test_an_answer_about_a_generation_that_has_passed_meanwhile_confirms_nothing() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.gate.clear()
        confirmed = await begun(world.membership.confirmed())
        world.identity = (4, "member")
        world.coordinator.gate.set()
        await confirmed
        assert world.coordinator.asked == [(3, "member"), (4, "member")]

    in_a_world(scenario)


def test_after_an_assignment_that_was_not_the_last_the_group_is_asked_no_faster_than_before() -> None:
    async def scenario(world: World) -> None:
        world.coordinator.answers = [Standing.REBALANCING] * 100
        confirmed = await begun(world.membership.confirmed())
        world.membership.assignment_changed()
        await asyncio.sleep(2.5)
        assert (confirmed.done(), len(world.coordinator.asked)) == (False, 4)
        confirmed.cancel()

    in_a_world(scenario)
