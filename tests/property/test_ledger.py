"""A partition's books against a model, over crashes, failed commits, lost offsets, expired records and holes.

The model knows every record that was ever written and whether the transaction that finished it was committed. What
must hold: nothing finished is begun again, nothing unfinished is forgotten, and the committed offset passes neither.
"""

from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentstream.consumers import metadata
from agentstream.consumers.ledger import Ledger, Receipt, claimed, fitted, ranges
from agentstream.consumers.metadata import CommitState, decode, encode


class Books(RuleBasedStateMachine):
    """One partition and its owners, one after the other."""

    strikes_survive = True

    def __init__(self) -> None:
        super().__init__()
        self.records: list[int] = []
        self.begin, self.end = 0, 0
        self.finished: set[int] = set()
        self.strikes: dict[int, int] = {}
        self.marked: set[int] = set()
        self.committed: tuple[int, str] | None = None
        self.owners = 0
        self.held: dict[int, Receipt] = {}
        self.started: set[int] = set()
        self.position = 0

    # what is true

    @property
    def unfinished(self) -> set[int]:
        return {offset for offset in self.records if offset >= self.begin} - self.finished

    # the log

    @initialize(first=st.integers(0, 1_000))
    def a_log_begins(self, first: int) -> None:
        self.begin = self.end = first
        self.acquire(new_owner=True)

    @rule(hole=st.integers(0, 3), count=st.integers(1, 9))
    def records_are_written_and_markers_leave_holes(self, hole: int, count: int) -> None:
        self.end += hole
        self.records += range(self.end, self.end + count)
        self.end += count

    # reading

    @rule(count=st.integers(1, 8))
    def records_are_read(self, count: int) -> None:
        for offset in [offset for offset in self.records if offset >= self.position][:count]:
            self.position = offset + 1
            receipt = self.ledger.open(offset)
            if offset in self.finished or offset in self.held:
                assert receipt is None, "it would run twice"
                continue
            assert receipt is not None, "a request was forgotten"
            assert receipt.offset == offset
            if self.strikes_survive:
                assert receipt.strikes == self.strikes.get(offset, 0)
            self.held[offset] = receipt

    @rule()
    def the_end_is_reached(self) -> None:
        self.records_are_read(len(self.records))
        self.position = max(self.position, self.end)
        self.ledger.skip_to(self.position)

    @rule()
    def a_kept_partition_is_read_again(self) -> None:
        """After a rebalance that left the partition here."""
        self.position = self.ledger.resume_offset

    # running

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_run_starts(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.held)))
        self.ledger.start(self.held[offset])
        self.started.add(offset)

    @rule(data=st.data(), fate=st.sampled_from(["committed", "committed", "failed", "in doubt"]))
    def a_transaction(self, data: st.DataObject, fate: str) -> None:
        finishing = data.draw(st.sets(st.sampled_from(sorted(self.held)))) if self.held else set()
        state = self.ledger.state(finishing)
        assert state.commit > decode(*self.where()).commit, "it would look committed before it is"
        if fate == "failed":
            return
        self.write(state, finishing)
        if fate == "in doubt":
            # Its owner asks what is committed and sees his own number.
            assert decode(*self.where()).commit == state.commit
        self.ledger.finish(finishing)
        for offset in finishing:
            del self.held[offset]
            self.started.discard(offset)

    def write(self, state: CommitState, finishing: set[int]) -> None:
        self.committed = (state.offset, encode(state))
        self.finished |= finishing
        self.marked = self.started - finishing

    # owners

    @rule(
        how=st.sampled_from(["crash", "crash after a commit", "release", "claim in doubt", "offsets lost", "expiry"]),
        data=st.data(),
    )
    def the_partition_is_acquired_after(self, how: str, data: st.DataObject) -> None:
        match how:
            case "crash after a commit" if self.held:
                finishing = data.draw(st.sets(st.sampled_from(sorted(self.held))))
                self.write(self.ledger.state(finishing), finishing)
            case "release":
                self.started.clear()
                self.write(self.ledger.state(released=True), set())
            case "offsets lost":
                self.committed = None
                self.strikes.clear()
                self.marked.clear()
            case "expiry":
                self.begin = data.draw(st.integers(self.begin, self.end))
        if how != "claim in doubt":
            for offset in self.marked & self.unfinished:
                self.strikes[offset] = self.strikes.get(offset, 0) + 1
        self.acquire(new_owner=how != "claim in doubt")

    def where(self) -> tuple[int, str]:
        assert self.committed is not None
        return self.committed

    def acquire(self, *, new_owner: bool) -> None:
        """As `Acquirer.acquire` does it."""
        self.owners += new_owner
        if self.committed is None:
            left = CommitState(offset=self.begin, next_offset=self.begin, index_until=self.end)
        else:
            left, expired = fitted(decode(*self.committed), begin=self.begin, end=self.end)
            assert expired >= 0
        index = ranges(self.finished) if left.index_until > left.offset else []
        state = claimed(left, owner=f"owner {self.owners}", now_ms=0)
        assert state.claim > (left.claim if self.committed else 0)
        self.ledger = Ledger(state, [done for done in index if done.stop > state.offset])
        self.held.clear()
        self.started.clear()
        self.position = self.ledger.resume_offset
        self.write(self.ledger.state(), set())

    # what must hold

    @invariant()
    def the_committed_offset_passes_nothing_unfinished(self) -> None:
        if self.committed is not None:
            assert all(offset >= self.committed[0] for offset in self.unfinished)

    @invariant()
    def everything_unfinished_is_held_or_will_be_read(self) -> None:
        assert all(offset in self.held or offset >= self.position for offset in self.unfinished)

    @invariant()
    def the_metadata_fits(self) -> None:
        assert self.committed is None or len(self.committed[1]) <= metadata.MAX_METADATA


class CrampedBooks(Books):
    """The same where the metadata is so short that open offsets must be left out all the time."""

    strikes_survive = False

    def __init__(self) -> None:
        super().__init__()
        self.limit = mock.patch.object(metadata, "MAX_METADATA", 64)
        self.limit.start()

    def teardown(self) -> None:
        self.limit.stop()


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestCrampedBooks = CrampedBooks.TestCase
TestCrampedBooks.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
