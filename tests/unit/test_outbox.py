"""What goes into one transaction, and when it is due. In virtual time: nothing sleeps."""

import asyncio
from collections.abc import Coroutine

import pytest

from agentstream.consumers.outbox import (
    CHANGED_SECONDS,
    LEAST_PAUSE_SECONDS,
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MOST_PAUSE_SECONDS,
    Batch,
    Outbox,
)
from agentstream.producers.outcomes import Outcome
from agentstream.schemas.records import OutgoingRecord
from tests.virtual_time import in_virtual_time

SMALL = (OutgoingRecord(topic="t", partition=0, key=None, value=b"small"),)


def time() -> float:
    return asyncio.get_running_loop().time()


def outcome(offset: int, size: int = 0, *, fallback: bool = True) -> Outcome:
    record = OutgoingRecord(topic="t", partition=0, key=None, value=b"x" * size)
    return Outcome(offset=offset, records=(record,), fallback=(lambda: SMALL) if fallback else None)


def outbox() -> Outbox:
    return Outbox(time)


async def soon(coroutine: Coroutine[object, object, Batch]) -> asyncio.Task[Batch]:
    """Begun, and given the time to get as far as it can without any passing."""
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_the_first_result_goes_at_once() -> None:
    async def scenario() -> None:
        box = outbox()
        waiting = await soon(box.due())
        box.put(outcome(1))
        assert (await waiting).offsets == {1}
        assert time() == 0

    in_virtual_time(scenario())


def test_what_became_ready_meanwhile_goes_together_a_little_later() -> None:
    async def scenario() -> None:
        box = outbox()
        first = box.put(outcome(1))
        batch = await box.due()
        others = [box.put(outcome(offset)) for offset in (2, 3)]
        assert not first.committed.done()
        box.done(batch)
        assert first.committed.done()
        assert (await box.due()).offsets == {2, 3}
        # Begun while the last one is still completing, a transaction is refused and tried again.
        assert time() == LEAST_PAUSE_SECONDS
        assert not any(other.committed.done() for other in others)

    in_virtual_time(scenario())


@pytest.mark.parametrize(("took", "pause"), [(0.001, LEAST_PAUSE_SECONDS), (0.01, 0.005), (1.0, MOST_PAUSE_SECONDS)])
def test_the_pause_is_half_of_what_the_last_transaction_took(took: float, pause: float) -> None:
    async def scenario() -> None:
        box = outbox()
        box.put(outcome(1))
        batch = await box.due()
        await asyncio.sleep(took)
        box.done(batch)
        box.put(outcome(2))
        await box.due()
        assert time() == pytest.approx(took + pause)

    in_virtual_time(scenario())


def test_outcomes_keep_their_order_within_the_bounds_of_a_batch() -> None:
    async def scenario() -> None:
        box = outbox()
        for offset in range(MAX_BATCH + 2):
            box.put(outcome(offset))
        first = await box.due()
        assert [item.outcome.offset for item in first.ready] == list(range(MAX_BATCH))
        box.done(first)
        assert (await box.due()).offsets == {MAX_BATCH, MAX_BATCH + 1}

    in_virtual_time(scenario())


def test_a_batch_has_a_bound_in_bytes_that_only_a_single_outcome_may_pass() -> None:
    async def scenario() -> None:
        box = outbox()
        sizes = [MAX_BATCH_BYTES * 2, MAX_BATCH_BYTES // 2, MAX_BATCH_BYTES // 3, MAX_BATCH_BYTES // 2]
        for offset, size in enumerate(sizes):
            box.put(outcome(offset, size))
        batches = []
        while box.waiting:
            batch = await box.due()
            batches.append(sorted(batch.offsets))
            box.done(batch)
        assert batches == [[0], [1, 2], [3]]

    in_virtual_time(scenario())


def test_a_started_mark_alone_forces_a_transaction_soon() -> None:
    async def scenario() -> None:
        box = outbox()
        waiting = await soon(box.due())
        box.books_changed()
        box.books_changed()
        batch = await waiting
        assert (batch.ready, batch.forced) == ([], [])
        assert time() == CHANGED_SECONDS
        box.done(batch)
        again = await soon(box.due())
        await asyncio.sleep(10)
        assert not again.done(), "nothing has changed since"
        again.cancel()

    in_virtual_time(scenario())


def test_runs_that_begin_all_the_time_do_not_put_their_marks_off() -> None:
    async def scenario() -> None:
        box = outbox()
        waiting = await soon(box.due())
        for _ in range(3):
            box.books_changed()
            await asyncio.sleep(CHANGED_SECONDS / 3)
        await waiting
        assert time() <= CHANGED_SECONDS

    in_virtual_time(scenario())


def test_a_started_mark_rides_in_a_result_s_transaction() -> None:
    async def scenario() -> None:
        box = outbox()
        box.books_changed()
        box.put(outcome(1))
        box.done(await box.due())
        assert time() == 0
        again = await soon(box.due())
        await asyncio.sleep(10)
        assert not again.done()
        again.cancel()

    in_virtual_time(scenario())


def test_a_forced_transaction_goes_at_once_and_its_caller_hears_of_its_commit() -> None:
    async def scenario() -> None:
        box = outbox()
        waiting = await soon(box.due())
        proof = box.force()
        batch = await waiting
        assert (time(), batch.ready, proof.done()) == (0, [], False)
        late = box.force()
        box.done(batch)
        assert (proof.done(), late.done()) == (True, False), "that one was in the air before it was asked for"

    in_virtual_time(scenario())


def test_a_batch_that_failed_comes_again_first_and_in_order() -> None:
    async def scenario() -> None:
        box = outbox()
        for offset in (1, 2):
            box.put(outcome(offset))
        proof = box.force()
        batch = await box.due()
        box.put(outcome(3))
        box.put_back(batch, refused=False)
        again = await box.due()
        assert [item.outcome.offset for item in again.ready] == [1, 2, 3]
        box.done(again)
        assert proof.done()

    in_virtual_time(scenario())


def test_started_marks_of_a_batch_that_failed_are_due_again() -> None:
    async def scenario() -> None:
        box = outbox()
        box.books_changed()
        batch = await box.due()
        box.put_back(batch, refused=False)
        assert (await box.due()).ready == []
        assert time() == 2 * CHANGED_SECONDS

    in_virtual_time(scenario())


async def refuse_until(box: Outbox, bad: set[int], *, at_most: int = 20) -> tuple[list[list[int]], list[int]]:
    """Play brokers that refuse every batch with one of these offsets in it, unless it is the small fallback."""
    tried: list[list[int]] = []
    committed: list[int] = []
    while box.waiting and len(tried) < at_most:
        batch = await box.due()
        tried.append([item.outcome.offset for item in batch.ready])
        if any(item.outcome.offset in bad and item.outcome.records != SMALL for item in batch.ready):
            box.put_back(batch, refused=True)
        else:
            committed += tried[-1]
            box.done(batch)
    return tried, committed


def test_a_batch_refused_twice_is_committed_one_by_one_and_the_culprit_as_its_fallback() -> None:
    async def scenario() -> None:
        box = outbox()
        items = [box.put(outcome(offset)) for offset in (1, 2, 3)]
        tried, committed = await refuse_until(box, {2})
        assert tried == [[1, 2, 3], [1, 2, 3], [1], [2], [2], [3]]
        assert committed == [1, 2, 3], "each once, in order"
        assert [item.outcome.records == SMALL for item in items] == [False, True, False]
        assert all(item.committed.done() for item in items)

    in_virtual_time(scenario())


def test_after_a_refusal_later_outcomes_do_not_join_the_suspects() -> None:
    async def scenario() -> None:
        box = outbox()
        box.put(outcome(1))
        for _ in range(2):
            box.put_back(await box.due(), refused=True)
        box.put(outcome(2))
        box.put(outcome(3))
        first = await box.due()
        assert first.offsets == {1}
        box.done(first)
        assert (await box.due()).offsets == {2, 3}

    in_virtual_time(scenario())


def test_a_transaction_that_was_only_interrupted_makes_nobody_a_suspect() -> None:
    async def scenario() -> None:
        box = outbox()
        for offset in (1, 2):
            box.put(outcome(offset))
        for _ in range(5):
            box.put_back(await box.due(), refused=False)
        assert (await box.due()).offsets == {1, 2}

    in_virtual_time(scenario())


def test_what_is_refused_even_as_its_fallback_is_tried_again_and_never_dropped() -> None:
    async def scenario() -> None:
        box = outbox()
        item = box.put(outcome(1, fallback=False))
        tried, committed = await refuse_until(box, {1}, at_most=6)
        assert (tried, committed, box.waiting) == ([[1]] * 6, [], 1)
        assert not item.committed.done()

    in_virtual_time(scenario())


def test_when_the_claim_is_lost_nobody_waits_any_longer() -> None:
    async def scenario() -> None:
        box = outbox()
        in_the_air = box.put(outcome(1))
        proof = box.force()
        await box.due()
        waiting, release = box.put(outcome(2)), box.force()
        box.abandon()
        futures = (in_the_air.committed, proof, waiting.committed, release)
        assert all(future.cancelled() for future in futures)
        assert box.waiting == 0

    in_virtual_time(scenario())


def test_nobody_begins_to_wait_on_a_claim_that_is_lost() -> None:
    async def scenario() -> None:
        box = outbox()
        box.abandon()
        # A partition lost while it was released waited ten seconds for this one.
        assert box.force().cancelled()
        assert box.put(outcome(1)).committed.cancelled()

    in_virtual_time(scenario())


def test_a_caller_who_went_away_does_not_disturb_the_others() -> None:
    async def scenario() -> None:
        box = outbox()
        gone, here = box.put(outcome(1)), box.put(outcome(2))
        batch = await box.due()
        gone.committed.cancel()
        box.done(batch)
        assert here.committed.done()
        assert not here.committed.cancelled()

    in_virtual_time(scenario())


def test_an_outcome_that_is_on_its_way_stirs_the_committer_and_is_not_due() -> None:
    async def scenario() -> None:
        box = outbox()
        stirring = asyncio.create_task(box.stirring())
        await asyncio.sleep(1)
        assert not stirring.done()
        box.expect()
        assert await stirring is True
        waiting = await soon(box.due())
        await asyncio.sleep(1)
        assert not waiting.done(), "its deltas are on their way"
        box.arrived()
        box.put(outcome(1))
        batch = await waiting
        assert batch.offsets == {1}
        box.done(batch)
        again = asyncio.create_task(box.stirring())
        await asyncio.sleep(1)
        assert not again.done()
        again.cancel()

    in_virtual_time(scenario())


def test_no_transaction_begins_ahead_for_what_goes_without_outcomes() -> None:
    async def scenario() -> None:
        box = outbox()
        proof = box.force()
        assert await box.stirring() is False
        box.done(await box.due())
        assert proof.done()
        box.books_changed()
        assert await box.stirring() is False
        assert time() == CHANGED_SECONDS

    in_virtual_time(scenario())


def test_what_others_of_a_transaction_expect_is_expected_after_it_as_well() -> None:
    async def scenario() -> None:
        box = outbox()
        box.expect()
        other = box.put(outcome(1))
        box.done(await box.due())
        assert other.committed.done()
        assert await box.stirring() is True, "one is still on its way"

    in_virtual_time(scenario())
