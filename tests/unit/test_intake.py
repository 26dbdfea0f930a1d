"""How much a worker holds at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.intake import Intake


@pytest.mark.parametrize(("count", "size"), [(100, 1), (10, 100)])
def test_a_worker_is_full_at_its_bound_of_requests_or_bytes_and_opens_at_three_quarters(count: int, size: int) -> None:
    intake = Intake(max_held=100, max_bytes=1_000)
    full: list[bool] = []
    for _ in range(count):
        intake.taken(size)
        full.append(intake.full)
    assert full == [False] * (count - 1) + [True]
    while intake.held > 0.75 * count:
        assert intake.full, "each pause throws fetched records away: do not open for a single place"
        intake.released(size)
    assert not intake.full


def test_both_bounds_must_have_room_before_it_opens() -> None:
    intake = Intake(max_held=4, max_bytes=100)
    intake.taken(99)
    intake.taken(1)
    intake.released(1)
    assert intake.full, "99 bytes of 100 are still held"
    intake.released(99)
    assert not intake.full


def test_one_request_larger_than_everything_is_taken_and_fills_the_worker() -> None:
    intake = Intake(max_held=4, max_bytes=100)
    intake.taken(1_000)
    assert intake.full
    intake.released(1_000)
    assert not intake.full


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 10), st.integers(1, 100))
def test_whatever_is_taken_and_released_an_empty_worker_is_open(sizes: list[int], held: int, held_bytes: int) -> None:
    intake = Intake(max_held=held, max_bytes=held_bytes)
    for size in sizes:
        intake.taken(size)
        if intake.held >= held or intake.held_bytes >= held_bytes:
            assert intake.full
    for size in sizes:
        intake.released(size)
    assert (intake.held, intake.held_bytes, intake.full) == (0, 0, False)


def test_a_partition_has_its_share_also_when_another_has_used_up_the_whole() -> None:
    intake = Intake(max_held=100, max_bytes=1_000)
    for _ in range(4):
        intake.joined()
    for _ in range(100):
        intake.taken(1)

    assert intake.full_for(100), "the busy one waits"
    assert not intake.full_for(24), "its neighbour goes on"
    assert intake.full_for(25), "but not beyond a quarter"
    intake.left()
    assert not intake.full_for(25)


def test_bytes_are_shared_by_nobody() -> None:
    intake = Intake(max_held=100, max_bytes=1_000)
    intake.joined()
    intake.taken(1_000)

    assert intake.full_for(0)
