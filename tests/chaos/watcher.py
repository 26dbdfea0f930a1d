"""A reader who is there all the time and follows the reader's rule, written out here once more.

Keep the attempt with the greatest `(claim, attempt)` and ignore lower ones wherever they stand; drop a `seq` already
seen; once the result is read, only its attempt counts.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from agentstream.consumers.kafka import Consumer, log_consumer
from tests.chaos.fleet import Fleet
from tests.chaos.log import partitions_of
from tests.chaos.order import SHOWN, text_of
from tests.chaos.transcripts import Rank, Told

Json = Mapping[str, Any]


@dataclass(kw_only=True, slots=True)
class _Kept:
    """What the reader keeps of one run."""

    told: Told
    attempt_id: str
    settled: bool = False
    """The result was read and is what was kept."""


@dataclass
class Watcher:
    """Notes when each result became visible, and keeps of each run what the reader's rule says."""

    fleet: Fleet
    seen: dict[str, float] = field(default_factory=dict)
    """When each run's result was seen, by `time.monotonic()`."""
    twice: list[str] = field(default_factory=list)
    """Runs of which a second result was seen."""
    broken: list[str] = field(default_factory=list)
    """What such a reader must never see."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Delta records of lower attempts and events seen before: what the rule is for."""
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _results: dict[str, Json] = field(default_factory=dict)
    """Results of which not all deltas were read yet."""
    _consumer: Consumer | None = None

    async def watch(self) -> None:
        """Until cancelled. A broker that is away is waited for."""
        topics = self.fleet.topics
        async with log_consumer(self.fleet.connection) as consumer:
            consumer.assign(
                await partitions_of(consumer, topics.assistant_messages)
                + await partitions_of(consumer, topics.stream_deltas)
            )
            self._consumer = consumer
            while True:
                for where, records in (await consumer.getmany(timeout_ms=500)).items():
                    take = self.take_result if where.topic == topics.assistant_messages else self.take_deltas
                    for record in records:
                        take(json.loads(record.value))

    async def at_the_end(self) -> bool:
        """Whether all that the topics hold was read, and each result's deltas."""
        consumer = self._consumer
        if consumer is None:
            return False
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return all([await consumer.position(where) >= end for where, end in ends.items()])

    def take_result(self, result: Json) -> None:
        """A result was read."""
        run_id = result["run_id"]
        if run_id in self.seen:
            self.twice.append(run_id)
            return
        self.seen[run_id] = time.monotonic()
        if result.get("attempt_id") is not None:
            self._results[run_id] = result
            self._settle(run_id)

    def take_deltas(self, record: Json) -> None:
        """A record of the delta topic was read."""
        run_id, rank = record["run_id"], (record["claim"], record["attempt"])
        kept = self._kept.get(run_id)
        if kept is not None and rank < kept.told.rank:
            self.ignored["records of lower attempts"] += 1
            return
        if kept is None or rank > kept.told.rank:
            if kept is not None and kept.settled:
                self.broken.append(f"run {run_id}: {_told_as(rank)} spoke up after {_told_as(kept.told.rank)} had won")
            kept = self._kept[run_id] = _Kept(told=Told(run_id=run_id, rank=rank), attempt_id=record["attempt_id"])
        if kept.attempt_id != record["attempt_id"]:
            self.broken.append(f"run {run_id}: two attempts are {_told_as(rank)}, a reader cannot tell them apart")
            return
        for event in record["events"]:
            self._take_event(kept, event)
        if run_id in self._results:
            self._settle(run_id)

    def _take_event(self, kept: _Kept, event: Json) -> None:
        told = kept.told
        if event["seq"] < told.events:
            self.ignored["events seen before"] += 1
        elif not told.take(event):
            self.broken.append(
                f"run {told.run_id}: {_told_as(told.rank)} goes on with seq {event['seq']}, {told.events} is missing"
            )

    def _settle(self, run_id: str) -> None:
        """Compare what was kept with the result, as soon as all of its events were read."""
        result, kept = self._results[run_id], self._kept.get(run_id)
        if kept is None or kept.attempt_id != result["attempt_id"] or kept.told.events <= result["last_seq"]:
            return
        del self._results[run_id]
        said = text_of(dict(result))
        if result["status"] == "completed" and result["deltas"] == "complete" and kept.told.text not in (said, ""):
            self.broken.append(
                f"run {run_id}: followed live it said {kept.told.text[:SHOWN]!r}, its result says {said[:SHOWN]!r}"
            )
        kept.told.text, kept.settled = "", True

    def violations(self) -> list[str]:
        """All that this reader must not have seen, once both topics were read to their ends."""
        found = [f"run {run_id} had a second result while it was watched" for run_id in self.twice]
        for run_id, result in self._results.items():
            kept = self._kept.get(run_id)
            rank = (result["claim"], result["attempt"])
            what = "nothing" if kept is None else f"{kept.told.events} events of {_told_as(kept.told.rank)}"
            found.append(
                f"run {run_id}: a reader keeps {what}; the result is of {_told_as(rank)}, last_seq {result['last_seq']}"
            )
        return [*self.broken, *found]

    def silences(self) -> list[float]:
        """Seconds between two results that follow each other, longest first."""
        times = sorted(self.seen.values())
        return sorted((later - earlier for earlier, later in pairwise(times)), reverse=True)


def _told_as(rank: Rank) -> str:
    return f"claim {rank[0]}, attempt {rank[1]}"
