"""What `agentstream tail` takes from a topic: the records that are meant, decoded, by the reader's rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from agentstream.consumers.transcript import Transcripts
from agentstream.schemas.codec import Rejection, decode_events, decode_request, decode_result
from agentstream.schemas.dead_letters import DeadLetter, decode_dead_letter
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import ReadEvent, RunEnded, StreamEvents
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

What = Literal["results", "deltas", "requests", "dead-letters"]
Value = InvokeResult | StreamEvents | InvokeRequest | Rejection | DeadLetter | Problem

DECODERS: Final[Mapping[What, Callable[[Record], Value]]] = {
    "results": decode_result,
    "deltas": decode_events,
    "requests": decode_request,
    "dead-letters": decode_dead_letter,
}


def topic_of(what: What, topics: Topics) -> str:
    """The topic's name."""
    match what:
        case "results":
            return topics.assistant_messages
        case "deltas":
            return topics.stream_deltas
        case "requests":
            return topics.invoke_requests
        case _:
            return topics.dead_letters


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which records are meant. What is None restricts nothing."""

    session: str | None = None
    """Of this session."""
    run: str | None = None
    """Of this run."""
    status: str | None = None
    """Results with this status."""
    since: datetime | None = None
    """Written at this instant or later, by Kafka's timestamp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A record that is meant."""

    record: Record
    """As it lies on the log."""
    value: Value | None
    """What it says; of deltas only the events that are new. None while it is held without."""
    run_id: str | None
    """Its run, as far as it can be told."""
    session_id: str | None
    """Its session, as far as it can be told."""
    voided: bool = False
    """Deltas: whether all that was given of this run before is void, another attempt counts."""
    gap: bool = False
    """Deltas: whether events are missing before or among these."""

    @property
    def seqs(self) -> frozenset[int]:
        """Of deltas, the `seq` of the events that are new."""
        return (
            frozenset(event.seq for event in self.value.events) if isinstance(self.value, StreamEvents) else frozenset()
        )

    @property
    def ends_run(self) -> bool:
        """Whether nothing of its run is to be expected after it on its topic."""
        if isinstance(self.value, StreamEvents):
            return isinstance(self.value.events[-1], RunEnded)
        return isinstance(self.value, InvokeResult)


class Feed:
    """Decides about one record after the other. Remembers of deltas what the reader's rule needs, of 10,000 runs."""

    def __init__(self, what: What, wanted: Wanted) -> None:
        self._decode = DECODERS[what]
        self._wanted = wanted
        # Of our own writing these two have the run in a header and the session as their key: others are passed over
        # without a look at their bodies.
        self._ours = what in ("results", "deltas")
        self._transcripts = Transcripts()

    def take(self, record: Record) -> Seen | None:
        """The record, if it is meant and says anything new."""
        wanted = self._wanted
        if wanted.since is not None and record.timestamp_ms < wanted.since.timestamp() * 1000:
            return None
        if self._ours and not self._may_be_meant(record):
            return None
        value = self._decode(record)
        run_id, session_id = _named(value, record)
        if wanted.run not in (None, run_id) or wanted.session not in (None, session_id):
            return None
        if wanted.status is not None and not (isinstance(value, InvokeResult) and value.status == wanted.status):
            return None
        seen = Seen(record=record, value=value, run_id=run_id, session_id=session_id)
        return self._fresh(seen, value) if isinstance(value, StreamEvents) else seen

    def _may_be_meant(self, record: Record) -> bool:
        wanted = self._wanted
        if wanted.session is not None and record.key not in (None, wanted.session.encode("utf-8", "replace")):
            return False
        return wanted.run is None or header_text(last_wins(record.headers), CE_SUBJECT) in (None, wanted.run)

    def _fresh(self, seen: Seen, value: StreamEvents) -> Seen | None:
        fresh = self._transcripts.feed(value)
        if not fresh.events:
            return None
        return replace(seen, value=_with(value, fresh.events), voided=fresh.voided, gap=fresh.gap)


def _with(value: StreamEvents, events: tuple[ReadEvent, ...]) -> StreamEvents:
    return value.model_copy(update={"events": events, "first_seq": events[0].seq})


def decoded(what: What, seen: Seen, seqs: frozenset[int]) -> Seen:
    """A record that was held without its value, as it was: of deltas the events with these `seq`."""
    value = DECODERS[what](seen.record)
    if isinstance(value, StreamEvents):
        value = _with(value, tuple(event for event in value.events if event.seq in seqs))
    return replace(seen, value=value)


def _named(value: Value, record: Record) -> tuple[str | None, str | None]:
    match value:
        case InvokeResult() | StreamEvents() | DeadLetter():
            return value.run_id, value.session_id
        case InvokeRequest():
            return value.id, value.session_id
        case Rejection():
            return value.run_id or value.fallback_id, value.session_id
        case _:
            key = record.key.decode(errors="replace") if record.key else None
            return header_text(last_wins(record.headers), CE_SUBJECT), key
