"""Runs of one claim that wait for their turn; who waits over a second is told how many are before him.

`run.queued` is event 0 of the run's first attempt, whose id is made for it: the attempt goes on from event 1 when its
turn comes, and no reader needs a rule of its own for it (docs/decisions/queued-events.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from uuid_utils import uuid7

from agentstream.consumers.admitted import Admitted
from agentstream.schemas.events import RunQueued, StreamEvents

PATIENCE_SECONDS = 1.0


class WaitingRoom:
    """Plain and quick; made within a running loop; must be closed, or a timer goes on."""

    def __init__(self, publish: Callable[[StreamEvents, Admitted], bool], forget: Callable[[str], None]) -> None:
        """`publish` an event at once or not at all; `forget` an attempt's events."""
        self._publish = publish
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, dict[str, Admitted]] = {}
        self._due: deque[tuple[float, Admitted]] = deque()
        self._waiting: set[str] = set()
        self._announced: dict[str, str] = {}
        self._under_way: dict[str, tuple[str, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, admitted: Admitted) -> None:
        """A run waits from now on, behind those of its session that entered before and have not left."""
        run_id, session_id = admitted.run_id, admitted.session_id
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = {}
        lane[run_id] = admitted
        self._waiting.add(run_id)
        if admitted.parameters.stream != "none":
            self._due.append((self._loop.time() + PATIENCE_SECONDS, admitted))
            self._wake_at_the_first()

    def begin(self, admitted: Admitted) -> Admitted:
        """Its turn came. What comes back has the id of the attempt that was announced, if it was."""
        run_id = admitted.run_id
        self._waiting.discard(run_id)
        self._under_way[run_id] = (admitted.session_id, self._loop.time())
        attempt_id = self._announced.get(run_id)
        return admitted if attempt_id is None else replace(admitted, announced_as=attempt_id)

    def leave(self, admitted: Admitted) -> None:
        """It has ended, or will never begin here."""
        run_id, session_id = admitted.run_id, admitted.session_id
        self._waiting.discard(run_id)
        self._under_way.pop(run_id, None)
        if (attempt_id := self._announced.pop(run_id, None)) is not None:
            self._forget(attempt_id)
        if (lane := self._lanes.get(session_id)) is not None:
            lane.pop(run_id, None)
            if not lane:
                del self._lanes[session_id]

    def under_way(self) -> list[tuple[str, str, float]]:
        """Run id, session id and age in seconds of those that began and have not left."""
        now = self._loop.time()
        return [(run_id, session, round(now - since, 3)) for run_id, (session, since) in self._under_way.items()]

    def open_runs(self) -> Iterator[Admitted]:
        """Those that entered and have not left."""
        return (admitted for lane in self._lanes.values() for admitted in lane.values())

    def waiting(self) -> Iterator[Admitted]:
        """Those of them whose turn has not come."""
        return (admitted for admitted in self.open_runs() if admitted.run_id in self._waiting)

    @property
    def oldest_ms(self) -> int | None:
        """Timestamp of the oldest request that is open, ms since 1970."""
        return min((each.timestamp_ms for each in self.open_runs()), default=None)

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()
        for attempt_id in self._announced.values():
            self._forget(attempt_id)
        self._announced.clear()

    def _wake_at_the_first(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._tell)

    def _tell(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            _, admitted = self._due.popleft()
            if admitted.run_id in self._waiting:
                self._announce(admitted)
        self._wake_at_the_first()

    def _announce(self, admitted: Admitted) -> None:
        ahead = list(self._lanes[admitted.session_id]).index(admitted.run_id)
        attempt_id = str(uuid7())
        events = StreamEvents(
            run_id=admitted.run_id,
            session_id=admitted.session_id,
            claim=admitted.claim,
            attempt=admitted.attempt,
            attempt_id=attempt_id,
            first_seq=0,
            events=(RunQueued(ahead=ahead, seq=0, time=datetime.now(UTC)),),
        )
        if self._publish(events, admitted):
            self._announced[admitted.run_id] = attempt_id
