"""One ownership of an input partition: its books, its lanes, what is ready to be committed."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

from agentstream.consumers.acquisition import Acquired
from agentstream.consumers.admission import Admission, Refused, Run, Unnamed
from agentstream.consumers.concluding import Concluding, Pending
from agentstream.consumers.control import why
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.lanes import Lanes
from agentstream.consumers.ledger import MAX_ENCODED, MAX_OPEN_OFFSETS, Receipt
from agentstream.consumers.outbox import Batch, Outbox
from agentstream.consumers.publishing import Publishing
from agentstream.consumers.quarantine import UNMARKED_STARTS, probation
from agentstream.consumers.runs import Interrupt
from agentstream.consumers.tracing.lost import LostAttempts
from agentstream.consumers.waiting_room import WaitingRoom
from agentstream.schemas import span_names as names
from agentstream.schemas.records import Record
from agentstream.schemas.requests import CancelRun

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0
"""For runs that were told to end: two seconds are the harness's, the rest is for their last records."""


class Claim:
    """What a worker does with a partition between acquiring and losing it.

    `take` is plain and quick; everything that waits happens in the lanes, whose tasks live in `group`.
    """

    def __init__(self, partition: int, acquired: Acquired, engine: Engine, group: asyncio.TaskGroup) -> None:
        self.ledger = acquired.ledger
        self.outbox = Outbox(engine.clock)
        self.lanes = Lanes(group, str(partition))
        self.encoded_size = 0
        self.may_start = asyncio.Event()
        """Whether runs may start: not while it is unproved that the partition is still ours."""
        self.may_start.set()
        self._partition = partition
        self._engine = engine
        self._known = KnownRuns(acquired.index.hashes.items(), window=engine.index_window)
        self._admission = Admission(engine.agent_config, engine.bounds, self._known, self.ledger.claim)
        self._publishing = Publishing(engine, partition)
        self._concluding = Concluding(engine, self.outbox, self._publishing, self._known, claim=self.number)
        self._group = group
        self._waiting: dict[str, Pending] = {}
        self._interrupts: dict[str, Interrupt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._careful_until = acquired.careful_until
        self._unmarked_starts = 0
        self._held: dict[int, int] = {}
        self._draining = False
        self._began: set[int] = set()
        self._waiting_room = WaitingRoom(self._publishing.announce, engine.deltas.forget)
        self._lost = LostAttempts(
            engine.tracing,
            engine.read_deltas,
            partition=partition,
            claim=acquired.former_claim,
            offsets=acquired.lost if engine.tracing.makes_ids else frozenset(),
        )
        if acquired.lost and engine.tracing.makes_ids:
            self._start(self._lost.write(), "spans of lost attempts")
        engine.intake.joined()
        self.committed_at = engine.clock()
        """When a transaction was last committed, on the engine's clock."""

    @property
    def number(self) -> int:
        """The claim's number."""
        return self.ledger.claim

    @property
    def held(self) -> int:
        """Requests taken and not finished."""
        return len(self._held)

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
        process = self._concluding.taken(record, strikes=receipt.strikes)
        decision = self._admission.decide(record, process, strikes=receipt.strikes)
        if decision is None:
            self._concluding.duplicate(receipt.offset)
            return
        self._hold(receipt.offset, record.size)
        match decision:
            case Run() as run:
                self._known.begin(run.run_id, run.body_hash)
                pending = Pending(run, record, receipt)
                self._waiting[run.run_id] = pending
                self._waiting_room.enter(run.admitted)
                self._lost.taken_again(record, run.admitted)
                self.lanes.submit(run.session_id, partial(self._in_turn, pending))
                if (cancel := self._engine.control.find(run.run_id)) is not None:
                    self.cancel(cancel)
            case Refused() as refused:
                self._concluding.refused(refused)
            case Unnamed() as bad:
                self._concluding.rejected(bad)

    def cancel(self, cancel: CancelRun) -> None:
        """End a run as cancelled, if it is one of this partition's and has no result yet.

        One that runs ends through its harness. One that waits ends at once, before its turn: it may wait behind an
        hour of work, and only runs that started owe their results in order.
        """
        if (interrupt := self._interrupts.get(cancel.run_id)) is not None:
            interrupt.cancel(why(cancel))
        elif not self._draining and (pending := self._waiting.pop(cancel.run_id, None)) is not None:
            self._waiting_room.leave(pending.run.admitted)
            self._start(self._end_waiting(pending, cancel), f"cancel {cancel.run_id}")

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Beside the lanes; it ends with the claim."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_waiting(self, pending: Pending, cancel: CancelRun) -> None:
        interrupt = Interrupt()
        interrupt.cancel(why(cancel))
        result = await self._publishing.perform(pending.run.admitted, interrupt)
        if result is not None:
            await self._concluding.ended(pending, result)

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
                await self.may_start.wait()
                if self._draining or self._waiting.pop(run_id, None) is None:
                    return
                await self._mark_started(pending.receipt)
                begin()
                began = engine.clock()
                self._began.add(pending.receipt.offset)
                pending.run.admitted.process.turn_came()
                interrupt = self._interrupts[run_id] = Interrupt()
                if (cancel := engine.control.find(run_id)) is not None:
                    interrupt.cancel(why(cancel))
                try:
                    begun = self._waiting_room.begin(pending.run.admitted)
                    result = await self._publishing.perform(begun, interrupt)
                finally:
                    del self._interrupts[run_id]
            if result is None:
                self._concluding.given_back(pending.receipt.offset)
            else:
                await self._concluding.ended(pending, result)
                engine.metrics.processed(pending.run.admitted.parameters, engine.clock() - began, result.error)

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
        offsets = batch.offsets
        self.ledger.finish(offsets)
        self._began -= offsets
        for item in batch.ready:
            self._let_go(item.outcome.offset)
            self._concluding.committed(item.outcome)
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
        """The partition is lost, or was given back: end the runs, forget what was ready."""
        reason = names.DRAINING if self._draining else names.PARTITION_LOST
        self._draining = True
        self._engine.metrics.moved(len(self._interrupts))
        self._waiting_room.close()
        await self.lanes.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        for offset in tuple(self._held):
            self._let_go(offset)
        self._engine.intake.left()
        self.outbox.abandon()
        self._concluding.abandon(reason, began=self._began)
