"""A run's attempts as its deltas tell them, the void ones too: folded and counted, in bounded memory."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.transcript import ReaderRule, Transcript
from agentstream.schemas.codec import decode_events
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import ReadEvent, RunEnded, RunRetrying, StreamEvents, ToolEnded, ToolStarted
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import InvokeResult

MAX_TOOLS: Final = 1_000
"""Tool calls of an attempt that are kept one by one; all are counted."""


@dataclass(kw_only=True, slots=True)
class ToolCall:
    """A tool call as its events tell it."""

    name: str
    """The tool."""
    arguments: JsonValue = None
    """What it was called with; None if that was too large for the delta topic."""
    content: JsonValue = None
    """What it gave, cut if large; None while it runs."""
    is_error: bool = False
    """Whether it failed."""
    duration_ms: int | None = None
    """How long it took; None while it runs."""


@dataclass(kw_only=True, slots=True)
class AttemptHistory:
    """One attempt as its events tell it, each counted once however often it was sent."""

    claim: int
    """Its claim."""
    attempt: int
    """Its number within the claim."""
    attempt_id: str
    """Its uuid7."""
    first: Position
    """Where its first record lies."""
    last: Position
    """Where its last record lies."""
    started_at: datetime
    """When its first event happened that is still there."""
    last_at: datetime
    """When its newest event happened."""
    counts: Counter[str] = field(default_factory=Counter)
    """Events by type."""
    tools: dict[str, ToolCall] = field(default_factory=dict)
    """Its first tool calls, by their ids."""
    status: str | None = None
    """How it ended; `retrying`: another one was to follow; None: it did not, or its end is gone."""
    error: Problem | None = None
    """What went wrong."""
    missing: int = 0
    """Events before its last one that are not on the log."""
    voided: bool = True
    """Whether another attempt counts, or none."""

    def add(self, event: ReadEvent) -> None:
        """Take an event for the first time."""
        self.counts[event.type] += 1
        self.started_at, self.last_at = min(self.started_at, event.time), max(self.last_at, event.time)
        match event:
            case RunRetrying():
                self.status, self.error = "retrying", event.error
            case RunEnded():
                self.status, self.error = event.status, event.error
            case ToolStarted() if len(self.tools) < MAX_TOOLS:
                self.tools[event.tool_call_id] = ToolCall(name=event.tool_name, arguments=event.arguments)
            case ToolEnded() if event.tool_call_id in self.tools or len(self.tools) < MAX_TOOLS:
                call = self.tools.setdefault(event.tool_call_id, ToolCall(name=event.tool_name))
                call.content, call.is_error, call.duration_ms = event.content, event.is_error, event.duration_ms
            case _:
                pass


class EventsOfRun:
    """What the deltas of one run say, attempt by attempt."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._attempts: dict[str, AttemptHistory] = {}
        self._rules: dict[str, ReaderRule] = {}
        self.transcript = Transcript()

    def take(self, record: Record) -> None:
        """A record of any run."""
        if header_text(last_wins(record.headers), CE_SUBJECT) not in (None, self._run_id):
            return
        events = decode_events(record)
        if isinstance(events, Problem) or events.run_id != self._run_id:
            return
        self.transcript.feed(events)
        # A rule for each attempt: what a void one did is part of the history.
        rule = self._rules.setdefault(events.attempt_id, ReaderRule())
        attempt = self._attempts.setdefault(events.attempt_id, _begun(events, record.position))
        attempt.last = record.position
        for event in rule.feed(events).events:
            attempt.add(event)
        attempt.missing = sum(len(hole) for hole in rule.missing)

    def settled(self, result: InvokeResult | None) -> tuple[AttemptHistory, ...]:
        """The attempts in order; the one that counts is marked."""
        if result is not None:
            self.transcript.settle(result)
        counts = result.attempt_id if result is not None else self.transcript.rule.attempt_id
        for attempt in self._attempts.values():
            attempt.voided = attempt.attempt_id != counts or attempt.status == "retrying"
        return tuple(sorted(self._attempts.values(), key=lambda each: (each.claim, each.attempt)))

    def notes(self, result: InvokeResult | None) -> list[str]:
        """What is missing of them."""
        if result is None or result.attempt_id is None:
            return []
        attempt = self._attempts.get(result.attempt_id)
        if attempt is None:
            return ["its events are no longer on the log (7 days, unless that was changed)"]
        there = sum(attempt.counts.values())
        gone = result.last_seq + 1 - there
        return [f"{gone} of the {result.last_seq + 1} events of the attempt that counts are not on the log"] * (
            gone > 0
        )


def _begun(events: StreamEvents, at: Position) -> AttemptHistory:
    return AttemptHistory(
        claim=events.claim,
        attempt=events.attempt,
        attempt_id=events.attempt_id,
        first=at,
        last=at,
        started_at=events.events[0].time,
        last_at=events.events[0].time,
    )
