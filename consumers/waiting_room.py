"""Runs of one claim that wait for their turn; who waits over a second is told how many are before him.

`run.queued` is event 0 of the run's first attempt, whose id is made for it: the attempt goes on from event 1 when its
turn comes, and no reader needs a rule of its own for it (docs/decisions/queued-events.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

from uuid_utils import uuid7

from agentstream.consumers.admitted import Admitted
from agentstream.schemas.events import RunQueued, StreamEvents

PATIENCE_SECONDS: Final = 1.0
TOLD_AT_ONCE: Final = 10
"""By one partition in one turn of the loop: 0.1 ms, or 0.2 in a worker that is busy. Thousands of requests that were
read together are due together, and told in one stretch they kept everything else waiting for a tenth of a second."""

_QUEUED: Final = RunQueued(ahead=0, seq=0)


@dataclass(eq=False, slots=True)
class _Lane:
    """The runs of one session that have not left."""

    open: int = 0
    """How many there are."""
    called: int = 0
    """How many of them were called. They are in the order of their coming, so these are before the next one: to look
    for it among all took 20 µs where 2,000 wait in one session."""


@dataclass(eq=False, slots=True)
class _Run:
    """One that entered and has not left."""

    admitted: Admitted
    """What entered."""
    lane: _Lane
    """Its session's."""
    due: float
    """When it is to be called, on the loop's clock."""
    called: bool = False
    """Whether its time has come: if it waits then, it is told."""
    left: bool = False
    """Whether it left."""
    began: float | None = None
    """When its turn came."""
    announced: str | None = None
    """Id of the attempt that was announced."""


class WaitingRoom:
    """Plain and quick; made within a running loop; must be closed, or a timer goes on."""

    def __init__(self, publish: Callable[[StreamEvents, Admitted], bool], forget: Callable[[str], None]) -> None:
        """`publish` an event at once or not at all; `forget` an attempt's events."""
        self._publish = publish
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, _Run] = {}
        self._lanes: dict[str, _Lane] = {}
        self._uncalled: deque[_Run] = deque()
        """In the order of their coming; some have left."""
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, admitted: Admitted) -> None:
        """A run waits from now on, behind those of its session that entered before and have not left."""
        session_id = admitted.session_id
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = _Lane()
        lane.open += 1
        run = self._runs[admitted.run_id] = _Run(admitted, lane, self._loop.time() + PATIENCE_SECONDS)
        self._uncalled.append(run)
        if self._timer is None:
            self._timer = self._loop.call_at(run.due, self._call)

    def begin(self, admitted: Admitted) -> Admitted:
        """Its turn came. What comes back has the id of the attempt that was announced, if it was."""
        run = self._runs.get(admitted.run_id)
        if run is None:
            return admitted
        run.began = self._loop.time()
        return admitted if run.announced is None else admitted.announced(run.announced)

    def leave(self, admitted: Admitted) -> None:
        """It has ended, or will never begin here."""
        run = self._runs.pop(admitted.run_id, None)
        if run is None:
            return
        run.left = True
        if run.announced is not None:
            self._forget(run.announced)
        lane = run.lane
        lane.open -= 1
        lane.called -= run.called
        if not lane.open:
            del self._lanes[admitted.session_id]

    def under_way(self) -> list[tuple[str, str, float]]:
        """Run id, session id and age in seconds of those that began and have not left, in the order of their turns."""
        now = self._loop.time()
        began = [(run.began, run.admitted) for run in self._runs.values() if run.began is not None]
        began.sort(key=itemgetter(0))
        return [(admitted.run_id, admitted.session_id, round(now - since, 3)) for since, admitted in began]

    def waiting(self) -> Iterator[Admitted]:
        """Those that entered and have not left, and whose turn has not come."""
        return (run.admitted for run in self._runs.values() if run.began is None)

    @property
    def oldest_ms(self) -> int | None:
        """Timestamp of the oldest request that is open, ms since 1970."""
        return min((run.admitted.timestamp_ms for run in self._runs.values()), default=None)

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._uncalled.clear()
        for run in self._runs.values():
            if run.announced is not None:
                self._forget(run.announced)
                run.announced = None

    def _call(self) -> None:
        self._timer = None
        uncalled, now, told = self._uncalled, self._loop.time(), 0
        # Those that left are passed over whenever they were due: where runs are quick, that is a timer a second.
        while uncalled and (uncalled[0].left or (uncalled[0].due <= now and told < TOLD_AT_ONCE)):
            run = uncalled.popleft()
            if run.left:
                continue
            ahead, run.called = run.lane.called, True
            run.lane.called += 1
            if run.began is None and run.admitted.parameters.stream != "none":
                self._announce(run, ahead)
                told += 1
        if uncalled:
            # At once, if it is due: with the next turn of the loop.
            self._timer = self._loop.call_at(uncalled[0].due, self._call)

    def _announce(self, run: _Run, ahead: int) -> None:
        admitted, attempt_id = run.admitted, str(uuid7())
        events = StreamEvents.of_numbered(
            (_QUEUED.with_values(ahead=ahead, time=datetime.now(UTC)),),
            run_id=admitted.run_id,
            session_id=admitted.session_id,
            claim=admitted.claim,
            attempt=admitted.attempt,
            attempt_id=attempt_id,
            first_seq=0,
        )
        if self._publish(events, admitted):
            run.announced = attempt_id
