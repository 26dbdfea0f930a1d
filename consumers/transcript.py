"""What a reader of the delta topic may believe. Pure: records in, fresh events out.

    ReaderRule.feed(StreamEvents)   -> Fresh     which events count: the rule of three sentences below
    Transcript.feed(StreamEvents)   -> Fresh     the same, and the messages as far as they are written
    Transcripts.feed(StreamEvents)  -> Fresh     the rule for the runs of a whole topic, in bounded memory

Keep the attempt with the greatest `(claim, attempt)` and ignore lower ones wherever they stand on the log: a zombie may
write late. Drop a `(attempt_id, seq)` already seen: a producer that was replaced sends again. Once the result is read,
only its `attempt_id` counts.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    PartType,
    ReadEvent,
    RunEnded,
    RunRetrying,
    StreamEvents,
)
from agentstream.schemas.messages import MAX_PARTS, Message, Part, ReasoningPart, TextPart
from agentstream.schemas.results import InvokeResult

REMEMBERED_RUNS = 10_000
"""Some 300 bytes each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fresh:
    """What one record added."""

    events: tuple[ReadEvent, ...] = ()
    """Events never given before, of the attempt that counts."""
    voided: bool = False
    """Whether all that was given of this run before these events is void: clear what was shown."""
    gap: bool = False
    """Whether events are missing before or among these: they expired, or the reader came late."""


class ReaderRule:
    """Decides for one run which events count. Needs them in no particular order, and keeps none."""

    def __init__(self) -> None:
        self._attempt: tuple[int, int, str] | None = None
        self._next = 0
        self._missing: list[range] = []
        self._given = False
        self._winner: str | None = None
        self._last_seq: int | None = None

    @property
    def attempt_id(self) -> str | None:
        """The attempt that counts; None before the first event."""
        return None if self._attempt is None else self._attempt[2]

    @property
    def missing(self) -> tuple[range, ...]:
        """The `seq` of this attempt that were skipped so far, ascending."""
        return tuple(self._missing)

    @property
    def complete(self) -> bool:
        """Whether the result is known and every event up to its `last_seq` was seen."""
        return self._last_seq is not None and self._next > self._last_seq and not self._missing

    def feed(self, record: StreamEvents) -> Fresh:
        """Take one record, whosever it is."""
        # Two attempts never share a number; if a broken writer makes it so, all readers still choose the same one.
        attempt = (record.claim, record.attempt, record.attempt_id)
        if not self._counts(attempt):
            return Fresh()
        voided = attempt != self._attempt and self._turn_to(attempt)
        holes = len(self._missing)
        events = tuple(event for event in record.events if self._is_new(event.seq))
        self._given = self._given or bool(events)
        return Fresh(events=events, voided=voided, gap=len(self._missing) > holes)

    def settle(self, result: InvokeResult) -> Fresh:
        """Take the result: from now on only its attempt counts, also one whose events are still to come."""
        if self._last_seq is not None:
            return Fresh()
        self._last_seq, self._winner = result.last_seq, result.attempt_id
        if self._attempt is None or self._attempt[2] == result.attempt_id:
            return Fresh()
        return Fresh(voided=self._turn_to(None))

    def _counts(self, attempt: tuple[int, int, str]) -> bool:
        if self._last_seq is not None:
            return attempt[2] == self._winner
        return self._attempt is None or attempt >= self._attempt

    def _turn_to(self, attempt: tuple[int, int, str] | None) -> bool:
        voided = self._given
        self._attempt, self._next, self._missing, self._given = attempt, 0, [], False
        return voided

    def _is_new(self, seq: int) -> bool:
        if seq >= self._next:
            if seq > self._next:
                self._missing.append(range(self._next, seq))
            self._next = seq + 1
            return True
        for place, hole in enumerate(self._missing):
            if seq in hole:
                self._missing[place : place + 1] = [
                    part for part in (range(hole.start, seq), range(seq + 1, hole.stop)) if part
                ]
                return True
        return False


@dataclass(slots=True)
class _DraftPart:
    kind: PartType
    pieces: dict[int, str] = field(default_factory=dict)
    whole: Part | None = None

    def part(self) -> Part | None:
        """The part as far as it is written. Arguments of a tool call are no JSON until they are whole."""
        if self.whole is not None or self.kind == "tool_call":
            return self.whole
        text = "".join(piece for _, piece in sorted(self.pieces.items()))
        return ReasoningPart(content=text) if self.kind == "reasoning" else TextPart(content=text)


@dataclass(slots=True)
class _DraftMessage:
    role: str = "assistant"
    parts: dict[int, _DraftPart] = field(default_factory=dict)

    def message(self) -> Message | None:
        parts = [part for _, draft in sorted(self.parts.items()) if (part := draft.part()) is not None]
        return Message.model_validate({"role": self.role, "parts": parts[:MAX_PARTS]}) if parts else None


class Transcript:
    """One run as its events tell it: the messages so far, rebuilt whenever an attempt turns out to be void."""

    def __init__(self) -> None:
        self._rule = ReaderRule()
        self._done: list[Message] = []
        self._drafts: dict[str, _DraftMessage] = {}
        self.ended: RunEnded | None = None
        self.truncated = False

    @property
    def rule(self) -> ReaderRule:
        """Which attempt counts, what of it is missing, and whether it is complete."""
        return self._rule

    def feed(self, record: StreamEvents) -> Fresh:
        """Take one record of this run."""
        fresh = self._rule.feed(record)
        if fresh.voided:
            self._clear()
        for event in fresh.events:
            self._apply(event)
        return fresh

    def settle(self, result: InvokeResult) -> Fresh:
        """Take the run's result. Its own messages are the truth; these are what its events told."""
        fresh = self._rule.settle(result)
        if fresh.voided:
            self._clear()
        return fresh

    def messages(self) -> tuple[Message, ...]:
        """The messages of the attempt that counts: the finished ones in order, then those being written.

        `truncated` says that one of them was too large for the delta topic, and stands here without its large parts.
        """
        drafts = (draft.message() for draft in self._drafts.values())
        return (*self._done, *(message for message in drafts if message is not None))

    @property
    def text(self) -> str:
        """The text of the last assistant message as far as it is written, or an empty string."""
        return next((m.text for m in reversed(self.messages()) if m.role == "assistant"), "")

    def _clear(self) -> None:
        self._done, self._drafts, self.ended, self.truncated = [], {}, None, False

    def _apply(self, event: ReadEvent) -> None:
        match event:
            case RunRetrying():
                self._clear()
            case RunEnded():
                self.ended = event
            case MessageStarted():
                self._draft(event.message_id).role = event.role
            case MessageEnded():
                self._finish(event)
            case PartStarted():
                self._part(event)
            case PartDelta():
                self._part(event).pieces[event.seq] = event.delta
            case PartEnded():
                self._part(event).whole = event.part
            case _:
                pass

    def _draft(self, message_id: str) -> _DraftMessage:
        return self._drafts.setdefault(message_id, _DraftMessage())

    def _part(self, event: PartStarted | PartDelta | PartEnded) -> _DraftPart:
        return self._draft(event.message_id).parts.setdefault(event.part_index, _DraftPart(event.part_type))

    def _finish(self, event: MessageEnded) -> None:
        draft = self._drafts.pop(event.message_id, None)
        message = event.message
        if message is None:
            self.truncated = True
            message = None if draft is None else draft.message()
        if message is not None:
            self._done.append(message)


class Transcripts:
    """The reader's rule for every run of a topic. Remembers the runs that spoke last, at most `limit`.

    A run that was forgotten starts anew: a zombie that writes after 10,000 other runs spoke is believed again.
    """

    def __init__(self, *, limit: int = REMEMBERED_RUNS) -> None:
        self._rules: OrderedDict[str, ReaderRule] = OrderedDict()
        self._limit = limit

    def feed(self, record: StreamEvents) -> Fresh:
        """Take one record of any run."""
        return self._rule(record.run_id).feed(record)

    def settle(self, result: InvokeResult) -> Fresh:
        """Take the result of any run."""
        return self._rule(result.run_id).settle(result)

    def _rule(self, run_id: str) -> ReaderRule:
        rule = self._rules.setdefault(run_id, ReaderRule())
        self._rules.move_to_end(run_id)
        while len(self._rules) > self._limit:
            self._rules.popitem(last=False)
        return rule
