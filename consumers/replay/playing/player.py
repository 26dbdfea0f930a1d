"""Plays a recording: each of its runs as often as asked for, the turns of a session in order, within a budget."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agentstream.consumers.replay.playing.budget import Budget, Pace, Tally
from agentstream.consumers.replay.playing.conversations import Asked, RelivedSession
from agentstream.consumers.replay.playing.directory import ReplayDirectory
from agentstream.consumers.replay.playing.performers import Performer
from agentstream.consumers.replay.playing.playback import Playback, Playbacks
from agentstream.consumers.replay.playing.preparing import replayed_id, replayed_request, replayed_session
from agentstream.consumers.replay.playing.refusals import Refusals
from agentstream.consumers.replay.playing.tape import Tape, end_step, steps_of
from agentstream.producers.failed_results import failed_without_run
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.recordings import Divergence, RecordedRun, ReplayedRun
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext

AHEAD = 8
"""Runs read ahead for each that may run: those of one long session must not keep all others waiting."""


@dataclass(slots=True)
class _Lane:
    """One session in one repeat."""

    relived: RelivedSession = field(default_factory=RelivedSession)
    last: asyncio.Task[None] | None = None


class Player:
    """Plays one recording into one directory. Used once; opens and closes nothing."""

    def __init__(
        self,
        directory: ReplayDirectory,
        performer: Performer,
        playbacks: Playbacks,
        *,
        budget: Budget | None = None,
        progress: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        """`progress` hears after each run, and must be quick."""
        self.tally = Tally()
        self._directory = directory
        self._terms = directory.manifest.terms
        self._performer = performer
        self._playbacks = playbacks
        self._budget = budget or Budget()
        if self._terms.mode == "frozen":
            self._budget = replace(self._budget, max_cost=None)  # no model is asked: nothing costs anything
        self._refusals = Refusals(possible=self._terms.mode != "frozen")
        self._progress = progress
        self._pace = Pace(self._budget.rate)
        self._slots = asyncio.Semaphore(self._budget.concurrency)
        self._room = asyncio.Semaphore(self._budget.concurrency * AHEAD)
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._under_way = 0

    async def play(self, runs: Iterable[RecordedRun]) -> Tally:
        """Play them, in the recording's order; what has its result already is not played again.

        Returns when all are played, or the budget is used up: `Tally.exhausted` says so, and the replay can go on with
        a larger one. So does it where the first runs all failed for want of a model, see `Refusals`; these
        leave no result. Cancelled, what is under way is given up and leaves none, either. Raises what reading `runs`
        and the performer raise, and OSError where results cannot be written.
        """
        self.count_earlier()
        await self.play_some(runs)
        if self._refusals.held and not self.tally.finished:
            self._refuse()
        elif not self._refusals.all_were:
            self._keep(*self._refusals.released())
        self.tally.complete = self.tally.exhausted is None
        return self.tally

    def count_earlier(self) -> None:
        """Count what the directory has already. For whoever uses `play_some`, once, before it."""
        for replayed in self._directory.results():
            self.tally.add(replayed, earlier=True)

    async def play_some(self, runs: Iterable[RecordedRun]) -> None:
        """Some of the runs, as `play`; for recordings that go on, and called as often as they do."""
        async with asyncio.TaskGroup() as group:
            for run in runs:
                if not await self._submit(run, group):
                    break

    async def _submit(self, run: RecordedRun, group: asyncio.TaskGroup) -> bool:
        """Have all repeats of a run played in their lanes; False once the budget is used up."""
        for repeat in range(self._terms.repeats):
            if (run.run_id, repeat) in self._directory and self._terms.history == "recorded":
                continue
            await self._room.acquire()
            if self.tally.exhausted is not None:
                return False
            key = (run.session_id, repeat)
            lane = self._lanes.setdefault(key, _Lane())
            before = lane.last
            lane.last = group.create_task(self._in_turn(run, repeat, lane, before), name=f"replay {run.run_id}")
            lane.last.add_done_callback(lambda task, key=key: self._done(key, task))  # type: ignore[misc]
        return True

    def _done(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        self._room.release()
        # A relived session is kept: a later turn of it may be far down in the recording.
        if self._terms.history == "recorded" and self._lanes[key].last is task:
            del self._lanes[key]

    async def _in_turn(self, run: RecordedRun, repeat: int, lane: _Lane, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        asked = Asked(messages=run.request.messages, conversation="recorded")
        if self._terms.history == "relived":
            asked = lane.relived.asked(run)
        if (run.run_id, repeat) in self._directory:
            # Played before an interruption: later turns go on from what was answered then.
            lane.relived.answered(run, asked, self._directory.read(run.run_id, repeat).result)
            return
        async with self._slots:
            if self.tally.exhausted is None:
                under_way = self._under_way + self._refusals.held
                self.tally.exhausted = self.tally.reached(self._budget, under_way=under_way)
            if self.tally.exhausted is not None:
                return
            self._under_way += 1
            try:
                await self._pace.turn()
                replayed = await self._play(run, repeat, asked)
            finally:
                self._under_way -= 1
        lane.relived.answered(run, asked, replayed.result)
        self._keep(*self._refusals.passed(replayed))
        if self._refusals.all_were:
            self._refuse()

    def _refuse(self) -> None:
        self.tally.exhausted, self.tally.refused = self._refusals.why, True

    def _keep(self, *runs: ReplayedRun) -> None:
        for run in runs:
            self._directory.add(run)
            self.tally.add(run)
            self._progress(self.tally)

    async def _play(self, run: RecordedRun, repeat: int, asked: Asked) -> ReplayedRun:
        terms, replay = self._terms, self._directory.manifest.id
        tape = Tape.of(run)
        began_at, began = datetime.now(UTC), time.monotonic()
        playback = Playback(tape, terms, messages=asked.messages)
        if terms.mode == "frozen" and tape.unplayable is not None:
            result = self._refused(run, repeat, tape.unplayable)
        else:
            request = replayed_request(run, terms, replay=replay, repeat=repeat, messages=asked.messages)
            async with AsyncExitStack() as stack:
                stack.enter_context(self._playbacks.playing(request.id or "", playback))
                result = await self._performer.perform(request)
        return ReplayedRun(
            run_id=run.run_id,
            repeat=repeat,
            session_id=run.session_id,
            result=result,
            divergence=playback.divergence or self._other_end(run, tape, result),
            conversation=asked.conversation,
            tools_from_recording=playback.from_recording,
            tools_real=playback.real,
            began_at=began_at,
            seconds=time.monotonic() - began,
        )

    def _other_end(self, run: RecordedRun, tape: Tape, result: InvokeResult) -> Divergence | None:
        """Of a run whose harness was not asked here: it never began, was tried in vain, or its result was found."""
        code, recorded = _code(result), run.result
        if code == ErrorCode.REPLAY_DIVERGED.value and result.error is not None:
            what = result.error.detail or result.error.title
        elif self._terms.mode == "frozen" and tape.unplayable is None and recorded is not None:
            if (recorded.status, _code(recorded)) == (result.status, code):
                return None
            what = f"it ended with {code or result.status}, the recorded run with {_code(recorded) or recorded.status}"
        else:
            return None
        did = steps_of(result.messages)
        agreed = next((at for at, (one, other) in enumerate(zip(tape.steps, did, strict=False)) if one != other), None)
        at = min(len(did), len(tape.steps)) if agreed is None else agreed
        return Divergence(
            index=at,
            what=what,
            recorded=tape.steps[at] if at < len(tape.steps) else None,
            replayed=did[at] if at < len(did) else end_step(result.finish_reason, result.error),
        )

    def _refused(self, run: RecordedRun, repeat: int, why: str) -> InvokeResult:
        replay = self._directory.manifest.id
        return failed_without_run(
            run_id=replayed_id(replay, repeat, run.run_id),
            session_id=replayed_session(replay, repeat, run.session_id),
            partition=0,
            claim=1,
            problem=Problem.of(ErrorCode.UNSUPPORTED, why),
            timestamp_ms=time.time_ns() // 1_000_000,
            trace=TraceContext.fresh(),
        )


def _code(result: InvokeResult) -> str | None:
    return None if result.error is None else result.error.code.value
