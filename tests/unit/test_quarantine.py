"""Suspects start apart from each other."""

import asyncio
from itertools import pairwise

from agentstream.consumers.quarantine import Quarantine, probation
from tests.virtual_time import in_virtual_time


def test_without_strikes_nobody_waits() -> None:
    async def scene() -> int:
        quarantine, inside = Quarantine(), 0
        async with quarantine.entered(None), quarantine.entered(5.0), quarantine.entered(None):
            inside += 1
        return inside

    assert in_virtual_time(scene()) == 1


async def enter(quarantine: Quarantine, name: str, strikes: int, seconds: float, seen: list[tuple[str, float]]) -> None:
    async with quarantine.entered(probation(strikes, unmarked_start=False)) as begin:
        seen.append((name, asyncio.get_running_loop().time()))
        begin()
        await asyncio.sleep(seconds)


def entries(*suspects: tuple[str, int, float]) -> dict[str, float]:
    async def scene() -> dict[str, float]:
        quarantine, seen = Quarantine(), list[tuple[str, float]]()
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for name, strikes, seconds in suspects:
                group.create_task(enter(quarantine, name, strikes, seconds, seen))
        return {name: round(at - start, 3) for name, at in seen}

    return in_virtual_time(scene())


def test_suspects_start_one_after_the_other() -> None:
    assert entries(("a", 1, 2.0), ("b", 1, 2.0), ("c", 1, 2.0)) == {"a": 0, "b": 2, "c": 4}


def test_with_one_strike_a_long_run_lets_the_next_one_in_after_its_probation() -> None:
    """64 runs of ten minutes that lost their node would take ten hours one at a time."""
    assert entries(("a", 1, 600.0), ("b", 1, 600.0), ("c", 1, 1.0)) == {"a": 0, "b": 3, "c": 6}


def test_with_two_strikes_one_is_alone_for_half_a_minute() -> None:
    assert entries(("a", 2, 20.0), ("b", 2, 1.0)) == {"a": 0, "b": 20}
    assert entries(("a", 2, 600.0), ("b", 2, 1.0)) == {"a": 0, "b": 30}


def test_the_more_wait_the_shorter_is_each_probation() -> None:
    """Six runs of a minute with two strikes went one at a time to their ends, and partitions stood still meanwhile."""
    assert entries(*((name, 2, 60.0) for name in "abcdef")) == {"a": 0, "b": 6, "c": 12, "d": 18, "e": 24, "f": 30}
    many = entries(*((f"{number}", 1, 600.0) for number in range(64)))
    assert 29 < max(many.values()) < 34
    assert min(later - earlier for earlier, later in pairwise(many.values())) > 0.4


def test_who_comes_later_hurries_the_one_inside() -> None:
    async def scene() -> list[tuple[str, float]]:
        quarantine, seen = Quarantine(), list[tuple[str, float]]()
        async with asyncio.TaskGroup() as group:
            group.create_task(enter(quarantine, "a", 2, 600.0, seen))
            await asyncio.sleep(100)
            group.create_task(enter(quarantine, "b", 2, 600.0, seen))
            await asyncio.sleep(20)
            group.create_task(enter(quarantine, "c", 2, 1.0, seen))
        return [(name, round(at)) for name, at in seen]

    assert in_virtual_time(scene()) == [("a", 0), ("b", 100), ("c", 130)]


def test_with_one_strike_nobody_waits_for_the_end_of_one_with_two() -> None:
    """In a fleet with a backlog whole partitions stood still for minutes behind a few runs of a minute."""
    assert entries(("a", 2, 600.0), ("b", 1, 60.0), ("c", 1, 1.0)) == {"a": 0, "b": 3, "c": 6}


def starts(*suspects: tuple[float, float]) -> list[tuple[float, float]]:
    """Probations in the order in which runs of so many seconds are let in, and when."""

    async def scene() -> list[tuple[float, float]]:
        quarantine, seen = Quarantine(), list[tuple[float, float]]()

        async def enter_for(probation_s: float, run_s: float) -> None:
            async with quarantine.entered(probation_s) as begin:
                seen.append((probation_s, asyncio.get_running_loop().time()))
                begin()
                await asyncio.sleep(run_s)

        async with asyncio.TaskGroup() as group:
            for probation_s, run_s in suspects:
                group.create_task(enter_for(probation_s, run_s))
        return seen

    return in_virtual_time(scene())


def test_who_has_no_strike_waits_behind_one_who_has_not_behind_all_of_them() -> None:
    """Behind ten seconds for each, a partition that owed dozens of short runs was silent for 32 s."""
    assert starts((3, 600), (3, 600), (0.25, 60), (0.25, 60)) == [(3, 0), (0.25, 3), (0.25, 3.25), (3, 3.5)]


def test_who_has_no_strike_does_not_wait_for_the_end_of_one_with_two() -> None:
    """A partition was silent for the minute that another session's run took; it might have been an hour."""
    inf = float("inf")
    assert starts((inf, 3600), (3, 1), (0.25, 1)) == [(inf, 0), (0.25, 3), (3, 3.25)]


def test_who_is_cancelled_while_he_is_let_in_lets_the_next_one_in() -> None:
    async def scene() -> list[tuple[str, float]]:
        quarantine, seen = Quarantine(), list[tuple[str, float]]()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(enter(quarantine, "a", 2, 600.0, seen))
            second = group.create_task(enter(quarantine, "b", 2, 600.0, seen))
            group.create_task(enter(quarantine, "c", 2, 1.0, seen))
            await asyncio.sleep(1)
            first.cancel()
            await asyncio.sleep(0)
            second.cancel()
        return [(name, round(at)) for name, at in seen]

    assert [name for name, _ in in_virtual_time(scene())] == ["a", "c"]


def test_who_is_cancelled_gives_his_place_up() -> None:
    async def scene() -> bool:
        quarantine = Quarantine()
        first = asyncio.create_task(enter(quarantine, "a", 2, 600.0, []))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait({first})
        async with quarantine.entered(10.0):
            return True

    assert in_virtual_time(scene())


def test_the_first_starts_after_a_loss_are_suspected_of_it_for_a_moment() -> None:
    assert probation(0, unmarked_start=False) is None
    assert probation(0, unmarked_start=True) == 0.25
    assert probation(1, unmarked_start=True) == 3.0
