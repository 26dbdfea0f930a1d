"""What the delta topic tells of each attempt, folded record by record: of 100,000 runs it has a million records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Rank = tuple[int, int]
"""(claim, attempt): orders all attempts of a run."""


@dataclass(kw_only=True, slots=True)
class Told:
    """One attempt, as far as its events stand on the log."""

    run_id: str
    rank: Rank
    events: int = 0
    """How many of its events stand there in order, from `seq` 0."""
    text: str = ""
    """What its text deltas spell."""
    started_ms: float | None = None
    """When it says it started, ms since 1970."""

    def take(self, event: Mapping[str, Any]) -> bool:
        """One event; False if others are missing before it. One that was there already changes nothing."""
        if event["seq"] != self.events:
            return bool(event["seq"] < self.events)
        self.events += 1
        if event["type"] == "part.delta" and event["part_type"] == "text":
            self.text += event["delta"]
        elif event["type"] == "run.started":
            self.started_ms = datetime.fromisoformat(event["time"]).timestamp() * 1000
        return True


@dataclass(slots=True)
class Transcripts:
    """All attempts."""

    attempts: dict[str, Told] = field(default_factory=dict)
    """By attempt id."""
    best: dict[str, tuple[Rank, str]] = field(default_factory=dict)
    """By run: the greatest rank, and the id of its attempt. It is what a reader without the result would keep."""
    flaws: list[str] = field(default_factory=list)
    """What breaks the rules on the delta topic alone."""

    def add(self, record: Mapping[str, Any], where: str) -> None:
        """One record of the delta topic, in log order within its partition."""
        run_id, attempt_id, rank = record["run_id"], record["attempt_id"], (record["claim"], record["attempt"])
        told = self.attempts.get(attempt_id)
        if told is None:
            told = self.attempts[attempt_id] = Told(run_id=run_id, rank=rank)
        best_rank, best_id = self.best.get(run_id, (rank, attempt_id))
        if rank == best_rank and attempt_id != best_id:
            self.flaws.append(
                f"run {run_id}: the delta record at {where} is of attempt {attempt_id} under claim {rank[0]}, attempt "
                f"{rank[1]}; {best_id} has these very numbers, so a reader cannot tell which to keep"
            )
        if rank >= best_rank:
            self.best[run_id] = (rank, attempt_id)
        for event in record["events"]:
            if not told.take(event):
                self.flaws.append(
                    f"attempt {attempt_id}: seq {event['seq']} comes where {told.events} should "
                    f"(run {run_id}, at {where}): what is between was lost or came out of order"
                )
