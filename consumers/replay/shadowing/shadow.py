"""Follows production, plays what has ended with the candidate, and says how that stands: round after round."""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agentstream.consumers.replay.playing import Budget, Player
from agentstream.consumers.replay.shadowing.following import EndedRuns
from agentstream.consumers.replay.shadowing.keeping import ShadowDirectory
from agentstream.consumers.replay.shadowing.rolling import RollingComparison
from agentstream.schemas.recordings import RecordedRun

POLL_SECONDS: Final = 0.5
Publish = Callable[[Path], Awaitable[object]]
"""Is given the evidence of new pairs, to be read before it returns."""


async def to_nobody(evidence: Path) -> None:
    """Publish nothing."""


class Shadow:
    """One shadow. `run` ends once the budget is used up, and else when it is cancelled; it opens and closes nothing."""

    def __init__(
        self,
        ended: EndedRuns,
        directory: ShadowDirectory,
        player: Player,
        rolling: RollingComparison,
        *,
        budget: Budget,
        publish: Publish = to_nobody,
    ) -> None:
        """What `publish` raises ends the shadow. Killed before a round was published, its outcomes never are."""
        self._ended = ended
        self._directory = directory
        self._player = player
        self._rolling = rolling
        self._budget = budget
        self._publish = publish

    async def run(self, told: Callable[[], None] = lambda: None) -> None:
        """Go on where it stood. `told` is called after each round, those without a run too, and must be quick.

        Cancelled, what is under way is given up and comes once more. Raises KafkaError, OSError, TimeoutError.
        """
        self._player.count_earlier()
        await self._look_back()
        await self._play(list(self._directory.unplayed()))
        most = self._budget.concurrency * 4
        while self._reached() is None:
            found = await self._ended.next(POLL_SECONDS, most)
            fresh = self._directory.record(found.runs[: self._room()])
            await self._play(fresh)
            if self._reached() is None:
                await self._ended.commit(found.positions)
            told()

    async def _look_back(self) -> None:
        """The last pairs of before an interruption are part of how it stands."""
        last: deque[RecordedRun] = deque(maxlen=self._rolling.window)
        last.extend(run for run in self._directory.runs() if (run.run_id, 0) in self._directory.replay)
        if last:
            await self._rolling.add(list(last))

    async def _play(self, runs: list[RecordedRun]) -> None:
        await self._player.play_some(runs)
        played = [run for run in runs if (run.run_id, 0) in self._directory.replay]
        if played:
            await self._publish(await self._rolling.add(played))

    def _room(self) -> int | None:
        """How many more may be recorded: what will not be played has no place in the recording."""
        most = self._budget.max_runs
        return None if most is None else max(0, most - self._player.tally.finished)

    def _reached(self) -> str | None:
        tally = self._player.tally
        return tally.exhausted or tally.reached(self._budget, under_way=0)
