"""One ownership of an input partition: its books, its lanes, what is ready to be committed."""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from agentstream.consumers.acquisition import Acquired
from agentstream.consumers.admission import Admission, Refused, Run, Unnamed
from agentstream.consumers.control import why
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.lanes import Lanes
from agentstream.consumers.ledger import MAX_ENCODED, MAX_OPEN_OFFSETS, Receipt
from agentstream.consumers.outbox import Batch, Outbox, Ready
from agentstream.consumers.quarantine import UNMARKED_STARTS, probation
from agentstream.consumers.runs import Admitted, Interrupt
from agentstream.consumers.waiting_room import WaitingRoom
from agentstream.producers.outcomes import Outcome, RunOutcome
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import delta_headers
from agentstream.schemas.records import OutgoingRecord, Record
from agentstream.schemas.requests import CancelRun
from agentstream.schemas.results import InvokeResult

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0
"""For runs that were told to end: two seconds are the harness's, the rest is for their last records."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that waits for its turn, and what it came from."""

    run: Run
    record: Record
    receipt: Receipt


class Claim:
    """What a worker does with a partition between acquiring and losing it.

    `take` is plain and quick; everything that waits happens in the lanes, whose tasks live in `group`.
    """

    def __init__(self, partition: int, acquired: Acquired, engine: Engine, group: asyncio.TaskGroup) -> None:
        self.ledger = acquired.ledger
        self.outbox = Outbox(engine.clock)
        self.lanes = Lanes(group, str(partition))
        self.encoded_size = 0
        self._partition = partition
        self._engine = engine
        self._known = KnownRuns(acquired.index.hashes.items(), window=engine.index_window)
        self._admission = Admission(engine.agent_config, engine.bounds, self._known, self.ledger.claim)
        self._group = group
        self._waiting: dict[str, Pending] = {}
        self._interrupts: dict[str, Interrupt] = {}
        self._cancelling: set[asyncio.Task[None]] = set()
        self._careful_until = acquired.careful_until
        self._unmarked_starts = 0
        self._held: dict[int, int] = {}
        self._draining = False
        self._waiting_room = WaitingRoom(self._announce, engine.deltas.forget)
        self.committed_at = engine.clock()
        """When a transaction was last committed, on the engine's clock."""

    @property
    def number(self) -> int:
        """The claim's number."""
        return self.ledger.claim

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._interrupts)

    def under_way(self) -> list[tuple[str, str, float]]:
        """Run id, session id and age in seconds of the runs under way, until their results are committed."""
        return self._waiting_room.under_way()

    @property
    def waiting_room(self) -> WaitingRoom:
        """The runs without a result."""
        return self._waiting_room

    @property
    def full(self) -> bool:
        """No more records may be taken now: too many are open, or they are too scattered for the metadata.

        What a former owner left open is read again all the same: if 2,000 of his held the partition, nothing would
        ever finish, and nothing would ever open it.
        """
        if self.ledger.rereading:
            return False
        return self.ledger.open_count >= MAX_OPEN_OFFSETS or self.encoded_size > MAX_ENCODED

    def take(self, record: Record) -> None:
        """A record was read. It is entered in the books, and decided upon at once."""
        if self._draining:
            return
        self._engine.metrics.received()
        receipt = self.ledger.open(record.position.offset)
        if receipt is None:
            # Finished before, as the index knows: nothing to do but to move the committed offset past it.
            self.outbox.books_changed()
            return
        decision = self._admission.decide(record, strikes=receipt.strikes)
        if decision is None:
            self._engine.metrics.duplicate()
            self._finish(Outcome(offset=record.position.offset))
            return
        self._hold(receipt.offset, record.size)
        match decision:
            case Run() as run:
                self._known.begin(run.run_id, run.body_hash)
                pending = Pending(run, record, receipt)
                self._waiting[run.run_id] = pending
                self._waiting_room.enter(run.admitted)
                self.lanes.submit(run.session_id, partial(self._in_turn, pending))
                if (cancel := self._engine.control.find(run.run_id)) is not None:
                    self.cancel(cancel)
            case Refused() as refused:
                self._known.begin(refused.end.result.run_id, refused.end.body_hash)
                self._finish(self._engine.encoder.refused(refused.end, refused.problem), refused.end.result.run_id)
            case Unnamed() as bad:
                self._finish(self._engine.encoder.rejected(bad.end))

    def cancel(self, cancel: CancelRun) -> None:
        """End a run as cancelled, if it is one of this partition's and has no result yet.

        One that runs ends through its harness. One that waits ends at once, before its turn: it may wait behind an
        hour of work, and only runs that started owe their results in order.
        """
        if (interrupt := self._interrupts.get(cancel.run_id)) is not None:
            interrupt.cancel(why(cancel))
        elif not self._draining and (pending := self._waiting.pop(cancel.run_id, None)) is not None:
            self._waiting_room.leave(pending.run.admitted)
            task = self._group.create_task(self._end_waiting(pending, cancel), name=f"cancel {cancel.run_id}")
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _end_waiting(self, pending: Pending, cancel: CancelRun) -> None:
        interrupt = Interrupt()
        interrupt.cancel(why(cancel))
        result = await self._execute(pending.run.admitted, interrupt)
        if result is not None:
            await self._conclude(pending, result)

    async def _in_turn(self, pending: Pending) -> None:
        try:
            await self._perform(pending)
        finally:
            self._waiting_room.leave(pending.run.admitted)

    async def _perform(self, pending: Pending) -> None:
        """One run, from its turn in the lane until its result is committed.

        A suspect is on probation until then: a result that is not committed is lost with its worker.
        """
        engine, run_id = self._engine, pending.run.run_id
        await engine.control.caught_up()
        async with engine.quarantine.entered(self._probation(pending.receipt)) as begin:
            async with engine.slots:
                await engine.membership.before_a_run()
                if self._draining or self._waiting.pop(run_id, None) is None:
                    return
                await self._mark_started(pending.receipt)
                begin()
                interrupt = self._interrupts[run_id] = Interrupt()
                if (cancel := engine.control.find(run_id)) is not None:
                    interrupt.cancel(why(cancel))
                try:
                    result = await self._execute(self._waiting_room.begin(pending.run.admitted), interrupt)
                finally:
                    del self._interrupts[run_id]
            if result is not None:
                await self._conclude(pending, result)

    def _probation(self, receipt: Receipt) -> float | None:
        unmarked = receipt.offset < self._careful_until and self._unmarked_starts < UNMARKED_STARTS
        self._unmarked_starts += unmarked
        return probation(receipt.strikes, unmarked_start=unmarked)

    async def _mark_started(self, receipt: Receipt) -> None:
        """Note that a run begins, so that its loss is counted; where one was lost before, commit the note first."""
        self.ledger.start(receipt)
        if receipt.strikes or receipt.offset < self._careful_until:
            await self.outbox.force()
        else:
            self.outbox.books_changed()

    async def _conclude(self, pending: Pending, result: InvokeResult) -> None:
        """Wait for the run's deltas, at most ten seconds, and until its result is committed."""
        engine = self._engine
        if result.attempt_id is not None:
            settled = await engine.deltas.settle(result.attempt_id)
            if settled.deltas == "partial":
                result = result.model_copy(update={"deltas": "partial", "last_seq": settled.last_seq})
        end = RunOutcome(
            record=pending.record,
            body_hash=pending.run.body_hash,
            result=result,
            trace=pending.run.admitted.trace,
            deliveries=pending.receipt.strikes + 1,
        )
        await self._finish(engine.encoder.run(end), pending.run.run_id).committed

    async def _execute(self, admitted: Admitted, interrupt: Interrupt) -> InvokeResult | None:
        """Publish the run's events and return its result; None if it was drained."""
        attempt_id: str | None = None
        result: InvokeResult | None = None
        try:
            async with aclosing(self._engine.runs.execute(admitted, interrupt)) as produced:
                async for item in produced:
                    if isinstance(item, InvokeResult):
                        result = item
                        continue
                    if attempt_id is not None and attempt_id != item.attempt_id:
                        self._engine.deltas.forget(attempt_id)
                    attempt_id = item.attempt_id
                    await self._publish(item, admitted)
        finally:
            if result is None and attempt_id is not None:
                self._engine.deltas.forget(attempt_id)
        return result

    async def _publish(self, events: StreamEvents, admitted: Admitted) -> None:
        last_seq = events.first_seq + len(events.events) - 1
        await self._engine.deltas.publish(events.attempt_id, last_seq, self._delta_record(events, admitted))

    def _announce(self, events: StreamEvents, admitted: Admitted) -> bool:
        return self._engine.deltas.publish_if_idle(events.attempt_id, 0, self._delta_record(events, admitted))

    def _delta_record(self, events: StreamEvents, admitted: Admitted) -> OutgoingRecord:
        return OutgoingRecord(
            topic=self._engine.topics.stream_deltas,
            partition=self._partition,
            key=events.session_id.encode(),
            value=events.to_bytes(),
            headers=delta_headers(events.run_id, events.attempt_id, events.first_seq, admitted.trace),
        )

    def _finish(self, outcome: Outcome, run_id: str | None = None) -> Ready:
        ready = self.outbox.put(outcome)
        if run_id is not None:
            ready.committed.add_done_callback(partial(self._run_committed, run_id))
        return ready

    def _run_committed(self, run_id: str, committed: "asyncio.Future[None]") -> None:
        if not committed.cancelled():
            self._known.finish(run_id)

    def _hold(self, offset: int, size: int) -> None:
        self._held[offset] = size
        self._engine.intake.taken(size)

    def _let_go(self, offset: int) -> None:
        size = self._held.pop(offset, None)
        if size is not None:
            self._engine.intake.released(size)

    def committed(self, batch: Batch) -> None:
        """A transaction was committed. The books move first: the next transaction is built from them."""
        self.committed_at = self._engine.clock()
        self.ledger.finish(batch.offsets)
        for offset in batch.offsets:
            self._let_go(offset)
        self.outbox.done(batch)

    async def drain(self, grace_s: float) -> None:
        """Take nothing more; let started runs finish for `grace_s`, then end them with `run.retrying` and no result.

        Raises TimeoutError if they do not end even then.
        """
        self._draining = True
        self.lanes.discard_waiting()
        try:
            async with asyncio.timeout(grace_s):
                await self.lanes.drained()
        except TimeoutError:
            log.warning("partition %d: %d runs outlive the grace period", self._partition, len(self._interrupts))
            for interrupt in tuple(self._interrupts.values()):
                interrupt.drain()
            # Bounded: with the brokers away a result waits for its commit for ever, and the worker would never end.
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.lanes.drained()

    async def drop(self) -> None:
        """The partition is lost: end the runs, forget what was ready."""
        self._draining = True
        self._waiting_room.close()
        await self.lanes.cancel()
        for task in tuple(self._cancelling):
            task.cancel()
        for offset in tuple(self._held):
            self._let_go(offset)
        self.outbox.abandon()
