"""Which offsets of one input partition are open, started, finished, committable. Pure: no clock, no I/O.

open(offset) -> Receipt | None      None: finished before, or already here
start(receipt), finish(receipt)
state(finishing) -> CommitState     what a transaction that finishes these would leave behind
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import chain

from agentstream.consumers.metadata import CommitState, OpenOffset

MAX_OPEN_OFFSETS = 2_000
MAX_ENCODED = 3_000
"""Intake pauses above this many characters of metadata: what is open then can still scatter before it ends."""
_SEEN, _STARTED = OpenOffset(), OpenOffset(started=True)
"""Nearly every entry is one of these, without strikes."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record's way back to its ledger entry. It belongs to one assignment: after a revoke the ledger that gave it
    is dropped, and a late close changes nothing."""

    offset: int
    """The request's offset."""
    strikes: int
    """Owners lost while a run of it was under way."""


class Ledger:
    """The books of one partition under one claim."""

    def __init__(self, state: CommitState, done: Iterable[range] = ()) -> None:
        """`done`: finished offsets, ascending, where the group's offsets were lost and the index alone knows them."""
        self._next = state.next_offset
        self._done = deque(done)
        self._restored: dict[int, OpenOffset] = dict(sorted(state.open.items()))
        # Ascending like the restored ones and all below them: the record that is read is the lowest not yet entered.
        self._open: dict[int, OpenOffset] = {}
        self._claim = state.claim
        self._owner = state.owner
        self._commit = state.commit

    @property
    def next_offset(self) -> int:
        """The lowest offset never seen."""
        return self._next

    @property
    def resume_offset(self) -> int:
        """Where reading must start so that nothing open is missed."""
        return next(iter(self._restored), self._next)

    @property
    def rereading(self) -> bool:
        """Whether a former owner's open requests are still to be read again. They are in the books already."""
        return bool(self._restored)

    @property
    def open_count(self) -> int:
        """Requests seen and not finished, those not read again yet included."""
        return len(self._open) + len(self._restored)

    @property
    def finished_below(self) -> int:
        """Below this offset everything is finished: what the next commit says."""
        return next(chain(self._open, self._restored), self._next)

    @property
    def claim(self) -> int:
        """The claim these books are kept under."""
        return self._claim

    def open(self, offset: int) -> Receipt | None:
        """Enter a record that was read. None if it is finished, or entered already.

        Records come in order, so what an earlier owner left open below this one is no longer in the log.
        """
        self._forget_below(offset)
        if offset in self._restored:
            entry = self._restored.pop(offset)
        elif offset >= self._next:
            self._next = offset + 1
            if self._done and offset in self._done[0]:
                return None
            entry = _SEEN
        else:
            return None
        self._open[offset] = entry
        return Receipt(offset, entry.strikes)

    def skip_to(self, position: int) -> None:
        """Reading reached this position: what was not handed out below it does not exist (transaction markers)."""
        self._forget_below(position)
        self._next = max(self._next, position)

    def _forget_below(self, offset: int) -> None:
        while self._restored and (first := next(iter(self._restored))) < offset:
            del self._restored[first]
        while self._done and self._done[0].stop <= offset:
            self._done.popleft()

    def start(self, receipt: Receipt) -> None:
        """A run of it begins."""
        entry = self._open.get(receipt.offset)
        if entry is not None:
            self._open[receipt.offset] = replace(entry, started=True) if entry.strikes else _STARTED

    def finish(self, offsets: Collection[int]) -> None:
        """The transaction that finished these was committed."""
        for offset in offsets:
            self._open.pop(offset, None)

    def state(self, finishing: Collection[int] = (), *, released: bool = False) -> CommitState:
        """What a commit would leave behind if these offsets were finished by it. Each call gets its own number."""
        self._commit += 1
        left = {**self._open, **self._restored}
        for offset in finishing:
            left.pop(offset, None)
        if released:
            left = {offset: replace(entry, started=False) for offset, entry in left.items()}
        return CommitState(
            offset=next(iter(left), self._next),
            next_offset=self._next,
            open=left,
            claim=self._claim,
            owner=self._owner,
            commit=self._commit,
            released=released,
            index_until=self._done[-1].stop if self._done else 0,
        )


def claimed(previous: CommitState, *, owner: str, now_ms: int) -> CommitState:
    """The state of a new claim over what the previous owner left.

    The number never falls, even when the metadata is lost: it is at least the time. Runs that were under way when
    their owner vanished get a strike; not if it gave the partition back, nor if it was this very owner (a claim
    whose commit was in doubt).
    """
    lost = not previous.released and previous.owner not in ("", owner)
    return replace(
        previous,
        claim=max(previous.claim + 1, now_ms),
        owner=owner,
        commit=0,
        released=False,
        open={offset: _inherited(entry, lost=lost) for offset, entry in previous.open.items()},
    )


def _inherited(entry: OpenOffset, *, lost: bool) -> OpenOffset:
    return OpenOffset(started=False, strikes=entry.strikes + (1 if lost and entry.started else 0))


def fitted(state: CommitState, *, begin: int, end: int) -> tuple[CommitState, int]:
    """The state cut to what the log still holds, and how many open requests expired unread.

    `begin` is the first offset of the log. Above `end` is the caller's to refuse.
    """
    if state.offset >= begin:
        return state, 0
    left = {offset: entry for offset, entry in state.open.items() if offset >= begin}
    first = min(left, default=max(begin, min(state.next_offset, end)))
    expired = len(state.open) - len(left) + max(0, begin - state.next_offset)
    return replace(state, offset=max(begin, first), next_offset=max(state.next_offset, begin), open=left), expired


def ranges(offsets: Iterable[int]) -> list[range]:
    """Offsets in any order as few ascending ranges: a million finished runs in a row are one."""
    out: list[range] = []
    for offset in sorted(set(offsets)):
        if out and out[-1].stop == offset:
            out[-1] = range(out[-1].start, offset + 1)
        else:
            out.append(range(offset, offset + 1))
    return out
