"""Whether a worker makes progress, could take work, and what it is doing: for probes and people.

`watch` looks once a second; what it found stands in plain attributes, so that another thread can read them also while
the event loop is stuck.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiokafka.errors import KafkaError
from pydantic import JsonValue

from agentstream.consumers.coordinator import CoordinatorError
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.partition import Partition
from agentstream.consumers.worker import Worker

LOOK_SECONDS = 1.0
ASK_EVERY_SECONDS = 5.0
ASK_SECONDS = 10.0
LOOP_SECONDS = 30.0
"""An event loop that does not turn for so long is stuck: its runs get no events, and soon it is no member any more."""
POLL_SECONDS = 60.0
"""The poll loop waits half a second for records, and a rebalance is cut short after one."""
COMMIT_SECONDS = 120.0
"""Outcomes that wait for so long, while the brokers answer: the longest transaction takes 60 s."""


class Health:
    """One worker's. `watch` must run; everything else is plain."""

    def __init__(
        self,
        worker: Worker,
        harnesses: Mapping[str, Harness],
        ask_brokers: Callable[[], Awaitable[object]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask_brokers` returns if they answer, and raises CoordinatorError, KafkaError, OSError or TimeoutError."""
        self._worker = worker
        self._harnesses = harnesses
        self._ask_brokers = ask_brokers
        self._clock = clock
        self._began = self._turned = clock()
        self._asked = float("-inf")
        self._uncommitted_since: dict[int, float] = {}
        self._brokers: str | None = "the brokers were not asked yet"
        self._harness_problems: dict[str, str] = {}
        self._stuck: str | None = None
        self._unready: str | None = "the worker is starting"

    @property
    def stuck(self) -> str | None:
        """Why the worker makes no progress and should be replaced, or None."""
        silent = self._clock() - self._turned
        if silent > LOOP_SECONDS:
            return f"the event loop has not turned for {silent:.0f} s"
        return self._stuck

    @property
    def unready(self) -> str | None:
        """Why the worker takes no work now, or None."""
        return self.stuck or self._unready

    async def watch(self) -> None:
        """Look once a second, until cancelled."""
        asking: asyncio.Task[None] | None = None
        try:
            while True:
                if (asking is None or asking.done()) and self._clock() - self._asked > ASK_EVERY_SECONDS:
                    asking = asyncio.create_task(self._ask(), name="ask after brokers and harnesses")
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if asking is not None:
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking

    def look(self) -> None:
        """Judge things as they stand."""
        self._turned = self._clock()
        self._stuck = self._poll_is_stuck() or self._commits_are_stuck()
        self._unready = self._takes_nothing()

    async def _ask(self) -> None:
        problem: str | None = None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._ask_brokers()
        except (CoordinatorError, KafkaError, OSError, TimeoutError) as error:
            problem = f"no broker answers: {str(error) or type(error).__name__}"
        self._brokers = problem
        self._harness_problems = {
            kind: found for kind, harness in self._harnesses.items() if (found := await harness.health()) is not None
        }
        self._asked = self._clock()

    def _poll_is_stuck(self) -> str | None:
        polled = self._worker.polled_at
        if polled is None or (silent := self._clock() - polled) < POLL_SECONDS:
            return None
        return f"nothing was polled for {silent:.0f} s"

    def _commits_are_stuck(self) -> str | None:
        now, waiting = self._clock(), dict[int, float]()
        for partition in self._worker.partitions:
            claim = partition.claim
            if claim is None or not claim.outbox.uncommitted:
                continue
            # While the brokers do not answer nobody can commit: another worker could not either.
            since = now if self._brokers is not None else self._uncommitted_since.get(partition.number, now)
            waiting[partition.number] = max(since, claim.committed_at)
        self._uncommitted_since = waiting
        number = min(waiting, key=lambda each: waiting[each], default=None)
        if number is None or now - waiting[number] < COMMIT_SECONDS:
            return None
        return f"partition {number}: finished runs wait for {now - waiting[number]:.0f} s to be committed"

    def _takes_nothing(self) -> str | None:
        if self._worker.stopping:
            return "the worker is stopping"
        if not self._worker.assigned_once.is_set():
            return "the worker has not joined its group yet"
        if self._brokers is not None:
            return self._brokers
        if len(self._harness_problems) == len(self._harnesses):
            return "; ".join(f"harness {kind}: {problem}" for kind, problem in self._harness_problems.items())
        partitions = self._worker.partitions
        if partitions and all(partition.claim is None for partition in partitions):
            closed = next((each.closed_because for each in partitions if each.closed_because), None)
            return f"none of its partitions is open: {closed or 'they are being acquired'}"
        return None

    def status(self) -> dict[str, JsonValue]:
        """What the worker is doing, as JSON. Call it from the event loop."""
        engine, now = self._worker.engine, self._clock()
        generation, _ = self._worker.source.membership
        return {
            "stuck": self.stuck,
            "unready": self.unready,
            "uptime_s": round(now - self._began, 1),
            "stopping": self._worker.stopping,
            "group": {"generation": generation, "gaps": engine.membership.gaps},
            "brokers": self._brokers,
            "harnesses": {kind: self._harness_problems.get(kind) for kind in self._harnesses},
            "intake": {
                "held": engine.intake.held,
                "held_bytes": engine.intake.held_bytes,
                "full": engine.intake.full,
            },
            "deltas": {"rebuilt": engine.deltas.rebuilt, "dropped": engine.deltas.dropped},
            "control": engine.control.counts(),
            "abandoned_runs": engine.runs.abandoned,
            "partitions": [
                self._of_partition(partition, now)
                for partition in sorted(self._worker.partitions, key=lambda each: each.number)
            ],
        }

    def _of_partition(self, partition: Partition, now: float) -> dict[str, JsonValue]:
        claim = partition.claim
        if claim is None:
            return {"partition": partition.number, "claim": None, "closed_because": partition.closed_because}
        return {
            "partition": partition.number,
            "claim": claim.number,
            "closed_because": partition.closed_because,
            "finished_below": claim.ledger.finished_below,
            "next_offset": claim.ledger.next_offset,
            "lag": partition.lag,
            "open": claim.ledger.open_count,
            "uncommitted": claim.outbox.uncommitted,
            "last_commit_s_ago": round(now - claim.committed_at, 1),
            "sessions": claim.lanes.count,
            "waiting": claim.lanes.waiting,
            "runs": [
                {"run_id": run_id, "session_id": session_id, "age_s": age}
                for run_id, session_id, age in claim.under_way()
            ],
        }
