"""Runs of one session in order, sessions side by side. In virtual time: nothing sleeps."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from agentstream.consumers.lanes import Lanes, Work
from tests.virtual_time import in_virtual_time


class Diary:
    """Work that writes down when it began and ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, float]] = []
        self.cancelled: list[str] = []

    def work(self, name: str, seconds: float = 1.0) -> Work:
        async def run() -> None:
            self.begun.append(name)
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            self.ended.append((name, asyncio.get_running_loop().time()))

        return run


def with_lanes(scenario: Callable[[Lanes, Diary], Coroutine[object, object, None]]) -> Diary:
    async def play() -> Diary:
        diary = Diary()
        async with asyncio.TaskGroup() as group:
            await scenario(Lanes(group, "7"), diary)
        return diary

    return in_virtual_time(play())


def test_the_runs_of_a_session_happen_in_order_and_sessions_side_by_side() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        for name, seconds in [("a1", 5.0), ("a2", 1.0), ("a3", 1.0)]:
            lanes.submit("a", diary.work(name, seconds))
        for number in range(1_000):
            lanes.submit(f"session {number}", diary.work(f"other {number}"))
        assert (lanes.count, lanes.waiting) == (1_001, 1_003)
        await lanes.drained()
        assert lanes.waiting == 0

    diary = with_lanes(scenario)
    assert [entry for entry in diary.ended if entry[0].startswith("a")] == [("a1", 5.0), ("a2", 6.0), ("a3", 7.0)]
    assert {at for name, at in diary.ended if name.startswith("other")} == {1.0}


def test_a_lane_that_was_empty_works_again() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        lanes.submit("a", diary.work("first"))
        await lanes.drained()
        lanes.submit("a", diary.work("second"))
        await lanes.drained()

    assert [name for name, _ in with_lanes(scenario).ended] == ["first", "second"]


def test_work_submitted_by_the_last_piece_of_a_lane_is_not_forgotten() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        async def last() -> None:
            await asyncio.sleep(1)
            lanes.submit("a", diary.work("its successor"))

        lanes.submit("a", last)
        await lanes.drained()

    assert [name for name, _ in with_lanes(scenario).ended] == ["its successor"]


def test_lanes_without_work_are_drained() -> None:
    async def scenario(lanes: Lanes, _diary: Diary) -> None:
        await lanes.drained()
        await lanes.cancel()
        await lanes.drained()

    with_lanes(scenario)


def test_discarded_work_never_begins_and_begun_work_ends() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        for name in ("a1", "a2"):
            lanes.submit("a", diary.work(name))
        await asyncio.sleep(0.5)
        lanes.submit("b", diary.work("b1"))
        lanes.discard_waiting()
        await lanes.drained()

    diary = with_lanes(scenario)
    assert (diary.begun, diary.ended) == (["a1"], [("a1", 1.0)])


def test_cancelled_lanes_have_ended_when_the_call_returns() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        for session in "ab":
            for number in (1, 2):
                lanes.submit(session, diary.work(f"{session}{number}"))
        await asyncio.sleep(0.5)
        await lanes.cancel()
        assert diary.cancelled == ["a1", "b1"]
        await lanes.drained()
        assert lanes.waiting == 0

    assert with_lanes(scenario).begun == ["a1", "b1"]


def test_a_piece_of_work_that_survives_its_cancellation_is_the_last_of_its_lane() -> None:
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        async def stubborn() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(1)

        lanes.submit("a", stubborn)
        lanes.submit("a", diary.work("a2"))
        await asyncio.sleep(0.5)
        await lanes.cancel()

    assert with_lanes(scenario).begun == []


def test_lanes_cancelled_before_their_first_step_are_drained_all_the_same() -> None:
    # A task cancelled before it ran never comes to its `finally`: a worker that stopped waited for it for ever.
    async def scenario(lanes: Lanes, diary: Diary) -> None:
        lanes.submit("a", diary.work("a1"))
        await lanes.cancel()
        await lanes.drained()
        assert lanes.waiting == 0
        lanes.submit("a", diary.work("a2"))
        await lanes.drained()

    assert with_lanes(scenario).begun == ["a2"]


def test_a_bug_in_a_piece_of_work_ends_the_group_and_what_else_runs_in_it() -> None:
    diary = Diary()

    async def bug() -> None:
        await asyncio.sleep(0.5)
        raise ZeroDivisionError

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            lanes = Lanes(group, "7")
            lanes.submit("a", bug)
            lanes.submit("a", diary.work("a2"))
            lanes.submit("b", diary.work("b1"))
            await lanes.drained()

    with pytest.RaisesGroup(ZeroDivisionError):
        in_virtual_time(play())
    assert (diary.begun, diary.cancelled, diary.ended) == (["b1"], ["b1"], [])
