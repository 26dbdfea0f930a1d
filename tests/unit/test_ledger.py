"""The books of one partition: what is open, what may be committed, what a new owner makes of them."""

import pytest

from agentstream.consumers.ledger import Ledger, Receipt, claimed, fitted, ranges
from agentstream.consumers.metadata import CommitState, OpenOffset


def books(**fields: object) -> Ledger:
    return Ledger(CommitState(**{"offset": 100, "next_offset": 100, "claim": 7, "owner": "me", **fields}))  # type: ignore[arg-type]


def opened(ledger: Ledger, *offsets: int) -> list[Receipt]:
    return [receipt for offset in offsets if (receipt := ledger.open(offset)) is not None]


def test_the_committed_offset_waits_for_the_oldest_unfinished_request() -> None:
    ledger = books()
    opened(ledger, 100, 101, 102)
    assert ledger.state().offset == 100
    ledger.finish({101, 102})
    assert (ledger.state().offset, set(ledger.state().open)) == (100, {100})
    ledger.finish({100})
    assert (ledger.state().offset, ledger.open_count) == (103, 0)


def test_what_a_transaction_finishes_counts_as_finished_in_its_own_state_and_not_before_it_is_committed() -> None:
    ledger = books()
    opened(ledger, 100, 101)
    assert set(ledger.state({100}).open) == {101}
    assert ledger.open_count == 2
    assert set(ledger.state().open) == {100, 101}, "the transaction failed"


def test_a_record_is_entered_once() -> None:
    ledger = books()
    assert ledger.open(100) == Receipt(100, 0)
    assert ledger.open(100) is None
    assert ledger.open(99) is None, "it was finished before this claim"
    ledger.finish({100})
    assert ledger.open(100) is None


def test_holes_are_passed_over() -> None:
    ledger = books()
    opened(ledger, 100, 104)
    ledger.finish({100, 104})
    assert ledger.state().offset == 105
    ledger.skip_to(108)
    assert (ledger.next_offset, ledger.state().offset) == (108, 108)
    ledger.skip_to(50)
    assert ledger.next_offset == 108


def test_an_hour_long_run_does_not_keep_finished_ones_from_being_told() -> None:
    ledger = books()
    opened(ledger, *range(100, 1_000))
    ledger.finish(range(101, 1_000))
    state = ledger.state()
    assert (state.offset, state.next_offset, set(state.open)) == (100, 1_000, {100})


def test_each_state_has_a_number_of_its_own() -> None:
    ledger = books()
    assert [ledger.state().commit for _ in range(3)] == [1, 2, 3]


def test_what_a_former_owner_left_open_is_read_again_and_what_he_finished_is_not() -> None:
    ledger = books(offset=90, open={90: OpenOffset(strikes=1), 95: OpenOffset()})
    assert (ledger.resume_offset, ledger.rereading, ledger.open_count) == (90, True, 2)
    assert opened(ledger, 90, 91, 95, 99) == [Receipt(90, 1), Receipt(95, 0)]
    assert (ledger.resume_offset, ledger.rereading) == (100, False)
    assert ledger.open(100) == Receipt(100, 0)


def test_offsets_left_open_whose_records_are_gone_hold_nothing_up() -> None:
    ledger = books(offset=90, open={90: OpenOffset(), 95: OpenOffset(), 97: OpenOffset()})
    assert ledger.open(95) == Receipt(95, 0)
    assert set(ledger.state().open) == {95, 97}, "90 is no longer in the log"
    ledger.skip_to(100)
    assert set(ledger.state().open) == {95}


def test_until_they_are_read_again_open_offsets_stay_in_every_commit() -> None:
    ledger = books(offset=90, open={90: OpenOffset(strikes=2)})
    state = ledger.state()
    assert (state.offset, state.open) == (90, {90: OpenOffset(strikes=2)})


def test_started_marks_ride_along_and_strikes_stay() -> None:
    ledger = books(offset=90, open={90: OpenOffset(strikes=2)})
    (receipt,) = opened(ledger, 90)
    ledger.start(receipt)
    assert ledger.state().open == {90: OpenOffset(started=True, strikes=2)}
    ledger.finish({90})
    ledger.start(receipt)
    assert ledger.state().open == {}, "a late start of something finished changes nothing"


def test_a_released_partition_has_no_started_runs() -> None:
    ledger = books()
    for receipt in opened(ledger, 100, 101):
        ledger.start(receipt)
    state = ledger.state(released=True)
    assert state.released
    assert state.open == {100: OpenOffset(), 101: OpenOffset()}
    assert not ledger.state().released


def test_where_the_offsets_were_lost_the_index_says_what_is_finished() -> None:
    ledger = Ledger(
        CommitState(offset=0, next_offset=0, index_until=50, owner="me"), [range(3), range(4, 5), range(10, 20)]
    )
    assert [receipt.offset for receipt in opened(ledger, *range(22))] == [3, *range(5, 10), 20, 21]


def test_until_a_replay_is_through_the_next_owner_is_told_to_read_the_index_as_well() -> None:
    ledger = Ledger(CommitState(offset=0, next_offset=0, index_until=50, owner="me"), [range(3), range(10, 20)])
    opened(ledger, 0, 1)
    assert ledger.state().index_until == 20
    opened(ledger, *range(2, 20))
    ledger.finish(range(20))
    assert ledger.state().index_until == 20
    opened(ledger, 20)
    assert ledger.state().index_until == 0


BEFORE = CommitState(
    offset=5,
    next_offset=9,
    open={5: OpenOffset(started=True, strikes=1), 7: OpenOffset(strikes=1), 8: OpenOffset(started=True)},
    claim=40,
    owner="other",
    commit=12,
)


def test_a_lost_owner_is_a_strike_for_each_run_that_was_under_way() -> None:
    after = claimed(BEFORE, owner="me", now_ms=0)
    assert after.open == {5: OpenOffset(strikes=2), 7: OpenOffset(strikes=1), 8: OpenOffset(strikes=1)}
    assert (after.owner, after.commit, after.offset, after.next_offset) == ("me", 0, 5, 9)


@pytest.mark.parametrize("owner", ["me", ""])
def test_an_own_claim_in_doubt_and_metadata_without_an_owner_are_no_strike(owner: str) -> None:
    state = CommitState(offset=5, next_offset=6, open={5: OpenOffset(started=True, strikes=1)}, owner=owner)
    assert claimed(state, owner="me", now_ms=0).open == {5: OpenOffset(strikes=1)}


def test_a_partition_that_was_given_back_is_no_strike_and_not_released_any_more() -> None:
    state = CommitState(offset=5, next_offset=6, open={5: OpenOffset(started=True)}, owner="other", released=True)
    after = claimed(state, owner="me", now_ms=0)
    assert (after.open, after.released) == ({5: OpenOffset()}, False)


@pytest.mark.parametrize(("previous", "now_ms", "number"), [(40, 1_000, 1_000), (40, 40, 41), (2_000, 1_000, 2_001)])
def test_claim_numbers_grow_even_when_the_clock_or_the_metadata_falls_back(
    previous: int, now_ms: int, number: int
) -> None:
    assert claimed(CommitState(offset=0, next_offset=0, claim=previous), owner="me", now_ms=now_ms).claim == number


@pytest.mark.parametrize(
    ("begin", "offset", "next_offset", "still_open", "expired"),
    [
        (5, 5, 9, {5, 7, 8}, 0),
        (6, 7, 9, {7, 8}, 1),
        (8, 8, 9, {8}, 2),
        (9, 9, 9, set(), 3),
        # 3 that were open, and 9 to 19, which nobody has seen.
        (20, 20, 20, set(), 14),
    ],
)
def test_what_has_left_the_log_is_given_up_and_counted(
    begin: int, offset: int, next_offset: int, still_open: set[int], expired: int
) -> None:
    state, count = fitted(BEFORE, begin=begin, end=30)
    assert (state.offset, state.next_offset, set(state.open), count) == (offset, next_offset, still_open, expired)


def test_many_offsets_are_few_ranges() -> None:
    assert ranges([5, 3, 4, 9, 4]) == [range(3, 6), range(9, 10)]
    assert ranges([]) == []
