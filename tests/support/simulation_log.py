"""The truth of a simulated partition: what was sent, what was written for it, and every promise broken on the way."""

import json
from collections import Counter, deque
from dataclasses import dataclass, field

from agentstream.consumers.coordinator import NO_OFFSET, CommittedOffset
from agentstream.consumers.index import LoadedIndex
from agentstream.consumers.ledger import ranges
from agentstream.consumers.metadata import MAX_METADATA, CommitState, decode
from agentstream.consumers.quarantine import CRASH_LIMIT
from agentstream.producers.results import InputOffset
from agentstream.schemas.headers import last_wins
from agentstream.schemas.records import OutgoingRecord, Position, Record
from agentstream.schemas.results import FinishedRun, InvokeResult
from agentstream.schemas.topics import Topics
from tests.support.simulation_sent import Fault, Kind, Sent
from tests.support.simulation_time import Clock

TOPICS = Topics()
STALE_SECONDS = 0.007
"""Right after a commit others may read the offset of before, for so long, unless a fence came in between."""


@dataclass(repr=False)
class Log:
    """One partition of every topic, and what the group has committed for the input's."""

    number: int
    clock: Clock
    violations: list[str]
    records: list[Record | None] = field(default_factory=list)
    begin: int = 0
    sent: dict[int, Sent] = field(default_factory=dict)
    results: dict[str, InvokeResult] = field(default_factory=dict)
    dead_letters: Counter[int] = field(default_factory=Counter)
    index: list[OutgoingRecord] = field(default_factory=list)
    expired: set[str] = field(default_factory=set)
    """Runs of which a request left the log before it had an outcome."""
    refuse: Counter[str] = field(default_factory=Counter)
    """How often the brokers will refuse a run's result."""
    refused: set[str] = field(default_factory=set)
    committed: CommittedOffset = field(default_factory=lambda: CommittedOffset(offset=NO_OFFSET, metadata=""))
    epoch: int = 0
    faults: deque[Fault] = field(default_factory=deque)
    """Of the next transactions."""
    faults_of_results: deque[Fault] = field(default_factory=deque)
    """Of the next transactions that write something, which claims and marks do not."""
    trouble: bool = False
    """Whether anything but rebalances and clean stops happened since the last claim."""
    forgetful: bool = False
    """Whether strikes may be lost: the metadata is too short for them."""
    highest_claim: int = 0
    _stale: tuple[CommittedOffset, float, int] | None = None

    def __repr__(self) -> str:
        return f"log {self.number}"

    @property
    def state(self) -> CommitState | None:
        """What is committed, if anything is."""
        if self.committed.offset == NO_OFFSET:
            return None
        return decode(self.committed.offset, self.committed.metadata)

    def wrong(self, what: str) -> None:
        """A promise is broken."""
        self.violations.append(f"{self.clock.now:.3f} partition {self.number}: {what}")

    # the caller's side

    def send(self, kind: Kind, session: str, *, seconds: float = 0.0, of: Sent | None = None) -> Sent:
        """Append a request; `of` is the one that it repeats or contradicts."""
        offset = len(self.records)
        run_id = of.run_id if of else f"run-{self.number}-{offset}"
        body: dict[str, object] = {"id": run_id, "session_id": session, "messages": [{"role": "user", "content": "hi"}]}
        options = {"text": "done", "fail_attempts": 2 * (kind is Kind.FAILS_TWICE)}
        if kind is Kind.FAILS:
            options["error"] = "provider_auth"
        body["parameters"] = {"harness": {"kind": "scripted", "options": options}}
        if kind is Kind.CONFLICTS:
            body["metadata"] = {"made": "anew"}
        elif kind is Kind.INVALID:
            body["messages"] = []
        value = json.dumps(body).encode()
        if kind is Kind.REPEATS and of is not None:
            value, session, seconds = of.record.value or b"", of.session, of.seconds
        elif kind is Kind.UNREADABLE:
            value = b"not json"
        position = Position(topic=TOPICS.invoke_requests, partition=self.number, offset=offset)
        record = Record(position=position, timestamp_ms=1_000, key=session.encode(), value=value)
        self.records.append(record)
        self.sent[offset] = Sent(kind=kind, run_id=run_id, session=session, seconds=seconds, record=record)
        return self.sent[offset]

    def trim(self, begin: int) -> None:
        """Retention reaches this offset."""
        for offset in range(self.begin, begin):
            if offset in self.sent and not self.settled(offset):
                self.expired.add(self.sent[offset].run_id)
        self.begin = max(self.begin, begin)

    def forget_offsets(self) -> None:
        """The group's offsets expire, or an operator deletes them."""
        self.committed = CommittedOffset(offset=NO_OFFSET, metadata="")
        self._stale = None
        self.trouble = True

    # the broker's side

    def fence(self) -> int:
        """A producer of the partition's transactional id starts."""
        self.epoch += 1
        return self.epoch

    def offset_as_read(self) -> CommittedOffset:
        """As the coordinator answers."""
        if self._stale is not None:
            before, until, epoch = self._stale
            if self.clock.now < until and epoch == self.epoch:
                return before
        return self.committed

    def whole_index(self, *, whole: bool) -> LoadedIndex:
        """As a new owner reads it."""
        hashes: dict[str, str] = {}
        done: list[int] = []
        for record in self.index:
            line, run_id = FinishedRun.model_validate_json(record.value or b""), (record.key or b"").decode()
            done.append(line.offset)
            if line.status != "rejected":
                hashes.pop(run_id, None)
                hashes[run_id] = line.body_hash
        return LoadedIndex(hashes=hashes, done=ranges(done) if whole else [])

    def refuses(self, records: tuple[OutgoingRecord, ...]) -> bool:
        """Whether one of the records is refused, this time."""
        for record in records:
            if record.topic == TOPICS.assistant_messages:
                run_id = InvokeResult.model_validate_json(record.value or b"").run_id
                if self.refuse[run_id] > 0:
                    self.trouble = True
                    self.refuse[run_id] -= 1
                    self.refused.add(run_id)
                    return True
        return False

    def write(self, records: tuple[OutgoingRecord, ...], offset: InputOffset) -> None:
        """A transaction is committed."""
        before = self.state
        if len(offset.metadata) > MAX_METADATA:
            self.wrong(f"{len(offset.metadata)} characters of metadata")
        after = decode(offset.offset, offset.metadata)
        for record in records:
            if record.topic == TOPICS.assistant_messages:
                self._result(InvokeResult.model_validate_json(record.value or b""), before, after)
            elif record.topic == TOPICS.finished_runs:
                self.index.append(record)
            else:
                self._dead_letter(int(last_wins(record.headers)["__dlq.errors.offset"]))
        self._stale = (self.committed, self.clock.now + STALE_SECONDS, self.epoch)
        self.committed = CommittedOffset(offset=offset.offset, metadata=offset.metadata)
        self._claim_only_grows(before, after)
        self._books_go_on(before, after)
        self._nothing_is_passed(after)

    def _result(self, result: InvokeResult, before: CommitState | None, after: CommitState) -> None:
        if result.run_id in self.results:
            self.wrong(f"{result.run_id} has a second result")
        self.results[result.run_id] = result
        if result.claim != after.claim:
            self.wrong(f"{result.run_id} ended under claim {result.claim}, committed under {after.claim}")
        sent = self.first(result.run_id)
        if before is not None and not self.forgetful and sent.offset in before.open:
            strikes = before.open[sent.offset].strikes
            if strikes != result.crashes:
                self.wrong(f"{result.run_id} says {result.crashes} crashes and has {strikes} strikes")
        limit = result.error is not None and result.error.code == "crash_limit"
        if limit != (result.crashes >= CRASH_LIMIT) and result.status != "cancelled":
            self.wrong(f"{result.run_id} ended as {result.error} after {result.crashes} crashes")

    def _dead_letter(self, offset: int) -> None:
        self.dead_letters[offset] += 1
        if self.dead_letters[offset] > 1:
            self.wrong(f"offset {offset} has a second dead letter")

    def _claim_only_grows(self, before: CommitState | None, after: CommitState) -> None:
        same = before is not None and before.owner == after.owner and before.claim == after.claim
        if after.claim < self.highest_claim or (after.claim == self.highest_claim and before is not None and not same):
            self.wrong(f"claim {after.claim} after {self.highest_claim}")
        self.highest_claim = max(self.highest_claim, after.claim)

    def _books_go_on(self, before: CommitState | None, after: CommitState) -> None:
        """The offset only grows. A strike comes only under a new owner, for a run that was started and not given back;
        then exactly one."""
        if before is None or self.forgetful:
            return
        if after.offset < before.offset:
            self.wrong(f"offset {after.offset} is committed after {before.offset}")
        lost = before.owner not in ("", after.owner) and not before.released
        for offset in before.open.keys() & after.open.keys():
            was, now = before.open[offset], after.open[offset]
            if now.strikes != was.strikes + (lost and was.started):
                self.wrong(f"offset {offset} had {was.strikes} strikes and has {now.strikes}")
            if now.strikes > was.strikes and not self.trouble:
                self.wrong(f"offset {offset} has a strike, and nothing crashed")
        if before.owner != after.owner:
            # What the brokers will still refuse keeps the next owner from giving the partition back, too.
            self.trouble = bool(+self.refuse or self.faults or self.faults_of_results)

    def _nothing_is_passed(self, after: CommitState) -> None:
        for offset, sent in self.sent.items():
            if offset < self.begin or sent.run_id in self.expired or self.settled(offset):
                continue
            if offset < after.offset:
                self.wrong(f"offset {after.offset} is committed, and {sent.run_id} at {offset} has no outcome")
            elif offset < after.next_offset and offset not in after.open and sent.kind is not Kind.REPEATS:
                self.wrong(f"{sent.run_id} at {offset} is neither open nor finished below {after.next_offset}")

    # what is true

    def first(self, run_id: str) -> Sent:
        """The request that a run is of."""
        return next(sent for sent in self.sent.values() if sent.run_id == run_id)

    def strikes(self, offset: int) -> int:
        """As the group has committed them."""
        state = self.state
        return 0 if state is None or offset not in state.open else state.open[offset].strikes

    def settled(self, offset: int) -> bool:
        """Whether what is owed for a request was written. A repetition is owed nothing while the first one is open."""
        sent = self.sent[offset]
        if sent.kind is Kind.REPEATS:
            first = self.first(sent.run_id)
            state = self.state
            return sent.run_id in self.results or (state is not None and first.offset >= state.offset)
        if sent.kind in (Kind.CONFLICTS, Kind.UNREADABLE):
            return self.dead_letters[offset] == 1
        return sent.run_id in self.results

    @property
    def unsettled(self) -> list[Sent]:
        """Requests that are owed something."""
        return [
            sent for offset, sent in self.sent.items() if sent.run_id not in self.expired and not self.settled(offset)
        ]

    @property
    def drained(self) -> bool:
        """Whether everything has its outcome and the group has committed it all."""
        if self.unsettled:
            return False
        state = self.state
        # An owner that has nothing to do writes no offset again that was deleted under it.
        return state is None or (not state.open and state.offset == len(self.records))
