"""The engine, broken in one place each: what a simulation must find, or it finds nothing."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from agentstream.consumers import acquisition, claim, run_progress
from agentstream.consumers.committer import Committer
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.lanes import Lanes, Work
from agentstream.consumers.ledger import Ledger, claimed
from agentstream.consumers.membership import Membership
from agentstream.consumers.metadata import CommitState, OpenOffset
from agentstream.consumers.outbox import Batch
from agentstream.consumers.partition import Partition
from tests.support.simulation_machine import Simulation
from tests.support.simulation_weather import Calm, Crashes, Doubts, Losses, Zombies

_state = Ledger.state
_finish = Ledger.finish
_submit = Lanes.submit


def claim_restarts_at_one() -> Any:
    """Lost metadata, or any metadata, and a reader takes an old attempt for the newest."""
    return mock.patch.object(acquisition, "claimed", lambda *args, **names: replace(claimed(*args, **names), claim=1))


def _with_open(change: Callable[[CommitState, OpenOffset], OpenOffset]) -> Any:
    def broken(previous: CommitState, *, owner: str, now_ms: int) -> CommitState:
        state = claimed(previous, owner=owner, now_ms=now_ms)
        return replace(state, open={offset: change(previous, entry) for offset, entry in previous.open.items()})

    return mock.patch.object(acquisition, "claimed", broken)


def strikes_are_lost() -> Any:
    """A request that kills its worker kills for ever."""
    return _with_open(lambda _, __: OpenOffset())


def every_handover_is_a_strike() -> Any:
    """A clean stop counts as a crash."""
    released = claimed

    def broken(previous: CommitState, *, owner: str, now_ms: int) -> CommitState:
        entries = {offset: replace(entry, started=True) for offset, entry in previous.open.items()}
        return released(replace(previous, released=False, open=entries), owner=owner, now_ms=now_ms)

    return mock.patch.object(acquisition, "claimed", broken)


def released_keeps_started_marks() -> Any:
    """What was given back still looks as if it ran."""

    def broken(self: Ledger, finishing: Collection[int] = (), *, released: bool = False) -> CommitState:
        return _state(self, finishing)

    return mock.patch.object(Ledger, "state", broken)


def ledger_moves_before_the_commit() -> Any:
    """The next transaction is built from books that a failed one has changed."""

    def broken(self: Ledger, finishing: Collection[int] = (), *, released: bool = False) -> CommitState:
        _finish(self, finishing)
        return _state(self, finishing, released=released)

    return mock.patch.object(Ledger, "state", broken)


def next_offset_is_committed() -> Any:
    """And not the lowest that is open, which is told all the same."""

    def broken(self: Ledger, finishing: Collection[int] = (), *, released: bool = False) -> CommitState:
        state = _state(self, finishing, released=released)
        left = {offset: entry for offset, entry in state.open.items() if offset >= state.next_offset}
        return replace(state, offset=state.next_offset, open=left)

    return mock.patch.object(Ledger, "state", broken)


def _recovers(settle: Callable[[Any, Batch, bool], None]) -> Any:
    async def broken(self: Committer, claim: Any, batch: Batch, tried: CommitState, *, refused: bool) -> bool:
        await self._writer.close()
        found = await self._reopen()
        if found is None or (found.owner, found.claim) != (tried.owner, tried.claim):
            return False
        settle(claim, batch, refused)
        return True

    return mock.patch.object(Committer, "_recover", broken)


def in_doubt_is_put_back() -> Any:
    """Though it was committed: two results."""
    return _recovers(lambda claim, batch, refused: claim.outbox.put_back(batch, refused=refused))


def in_doubt_is_taken_for_done() -> Any:
    """Though it was not committed: no result."""
    return _recovers(lambda claim, batch, _: claim.committed(batch))


def whoever_wakes_fences() -> Any:
    """A zombie takes the partition from its living owner."""

    async def broken(_: Membership) -> None:
        return None

    return mock.patch.object(Membership, "confirmed", broken)


def lost_offsets_mean_start_again() -> Any:
    """The index of finished runs is not asked."""

    class Ignorant(KnownRuns):
        def __init__(self, finished: Iterable[tuple[str, str]] = (), *, window: int = 10) -> None:
            super().__init__((), window=window)

    class Forgetful(Ledger):
        def __init__(self, state: CommitState, done: Iterable[range] = ()) -> None:
            super().__init__(state)

    return _all(mock.patch.object(claim, "KnownRuns", Ignorant), mock.patch.object(acquisition, "Ledger", Forgetful))


def repetitions_run() -> Any:
    """The same request sent twice is two runs."""
    return mock.patch.object(KnownRuns, "seen", return_value=None)


def sessions_have_no_order() -> Any:
    """Each run has a lane of its own."""

    def broken(self: Lanes, session_id: str, work: Work) -> None:
        _submit(self, f"{session_id} {id(work)}", work)

    return mock.patch.object(Lanes, "submit", broken)


def crashes_have_no_limit() -> Any:
    """A fourth worker dies, and a fifth."""
    return mock.patch.object(run_progress, "CRASH_LIMIT", 5)


def rebalances_give_nothing_back() -> Any:
    """A partition that moves under its runs counts them as crashed."""
    return mock.patch.object(Partition, "revoked", return_value=None)


@contextmanager
def _all(*patches: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


MUTANTS: Mapping[Callable[[], Any], type[Simulation]] = {
    claim_restarts_at_one: Calm,
    every_handover_is_a_strike: Calm,
    released_keeps_started_marks: Calm,
    rebalances_give_nothing_back: Calm,
    next_offset_is_committed: Calm,
    sessions_have_no_order: Calm,
    repetitions_run: Calm,
    whoever_wakes_fences: Zombies,
    strikes_are_lost: Crashes,
    crashes_have_no_limit: Crashes,
    ledger_moves_before_the_commit: Doubts,
    in_doubt_is_put_back: Doubts,
    in_doubt_is_taken_for_done: Doubts,
    lost_offsets_mean_start_again: Losses,
}
"""Each with the least in which it shows."""
