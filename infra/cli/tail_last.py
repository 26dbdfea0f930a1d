"""The last records of a topic that are meant, in the order of their times; bounded in number and in bytes."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from agentstream.infra.cli.tail_feed import Seen, What, decoded
from agentstream.schemas.events import RunRetrying, StreamEvents

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of records as they lie on the log, 32 MiB: 10,000 results of 1 MiB would be 10 GiB."""


class Last:
    """Keeps the last `count`. What an attempt said that turns out to be void is left out."""

    def __init__(self, what: What, count: int, *, max_bytes: int = MAX_BYTES) -> None:
        self._what = what
        self._count = count
        self._max_bytes = max_bytes
        # By time and number: the record with nothing for its value, and which of its events count. Decoded, 10,000 of
        # them took 300 MB, and the garbage collector looked through them again and again: to read 100,000 records
        # took 85 s instead of 14.
        self._held: list[tuple[int, int, Seen, frozenset[int]]] = []
        self._bytes = 0
        self._newest: dict[int, int] = {}
        self._numbers = itertools.count()
        self.too_large = False
        """Whether some were left out for their size."""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, seen: Seen) -> None:
        """Take one; of each partition in the order of the log."""
        if seen.voided or _retries(seen):
            self._leave_out(lambda held: held.run_id == seen.run_id)
            seen = replace(seen, voided=False)  # nothing of it was shown, and nothing will be
        where = seen.record.position.partition
        # Callers' clocks differ: within a partition the log's order counts, whatever the timestamps say.
        time = self._newest[where] = max(seen.record.timestamp_ms, self._newest.get(where, 0))
        heapq.heappush(self._held, (time, next(self._numbers), replace(seen, value=None), seen.seqs))
        self._bytes += seen.record.size
        while len(self._held) > self._count or (self._bytes > self._max_bytes and len(self._held) > 1):
            self.too_large |= len(self._held) <= self._count
            self._bytes -= heapq.heappop(self._held)[2].record.size

    def in_order(self) -> Iterator[Seen]:
        """Those that are left."""
        for _, _, seen, seqs in sorted(self._held, key=lambda held: held[:2]):
            yield decoded(self._what, seen, seqs)

    def _leave_out(self, is_void: Callable[[Seen], bool]) -> None:
        self._held = [each for each in self._held if not is_void(each[2])]
        heapq.heapify(self._held)
        self._bytes = sum(seen.record.size for _, _, seen, _ in self._held)


def _retries(seen: Seen) -> bool:
    return isinstance(seen.value, StreamEvents) and any(isinstance(event, RunRetrying) for event in seen.value.events)
