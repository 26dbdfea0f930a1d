"""One input partition in this worker, from its assignment until it is lost.

serve(): acquire -> commit what becomes ready -> (a failed transaction) recover, or acquire anew -> …
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from aiokafka.errors import KafkaError
from uuid_utils.compat import uuid4

from agentstream.consumers.acquisition import Acquired, Acquirer, KeptClosedError
from agentstream.consumers.claim import Claim
from agentstream.consumers.coordinator import CoordinatorError
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import IndexDamagedError, IndexUnreadableError
from agentstream.consumers.metadata import CommitState, UnreadableMetadata
from agentstream.consumers.outbox import Batch
from agentstream.consumers.source import Source
from agentstream.producers.errors import Refused, WriteError
from agentstream.producers.results import ResultWriter
from agentstream.schemas.records import Record
from agentstream.schemas.requests import CancelRun

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 2.0
CLOSED_DELAY_SECONDS = 5.0
REFUSED_DELAY_SECONDS = 10.0
RELEASE_SECONDS = 10.0
_AGAIN = (WriteError, CoordinatorError, IndexUnreadableError, KafkaError, OSError)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a partition needs of its worker."""

    engine: Engine
    """What all partitions share."""
    acquirer: Acquirer
    """Takes partitions over."""
    source: Source
    """Where records come from."""
    acquiring: asyncio.Semaphore
    """At most 16 at once: 64 producers starting together take 309 ms, and a worker may hold hundreds of partitions."""


class Partition:
    """One assignment of one partition. `serve` runs until it is cancelled; the rest are plain calls."""

    def __init__(self, number: int, shared: Shared) -> None:
        self.number = number
        self._closed_because: str | None = None
        self.claim: Claim | None = None
        self._shared = shared
        self._owner = uuid4().hex[:12]
        self._writer: ResultWriter | None = None
        self._assignment = 0
        self._proved = -1
        self._draining = False
        self._released = False
        self._moving = False

    @property
    def closed_because(self) -> str | None:
        """What a person must look at: why it is kept closed, held, or cannot commit. None while all is well."""
        if self._closed_because is not None:
            return self._closed_because
        found = self._shared.source.unreadable(self.number)
        return None if found is None else f"it cannot be read from {found.offset} on: {found.why}"

    @property
    def lag(self) -> int | None:
        """Records between what is finished and the log's end; None while either is not known."""
        end = self._shared.source.seen_end(self.number)
        return None if end is None or self.claim is None else max(0, end - self.claim.ledger.finished_below)

    async def serve(self, predecessors: "Collection[asyncio.Task[None]]" = ()) -> None:
        """Own the partition until cancelled. `predecessors` served it before in this worker and must end first.

        What can go wrong with Kafka is tried again for as long as it takes. Raises only for a bug of ours.
        """
        if predecessors:
            await asyncio.wait(predecessors)
        while True:
            assignment = self._assignment
            acquired = await self._acquire()
            self._writer = acquired.writer
            try:
                async with asyncio.TaskGroup() as group:
                    await self._own(Claim(self.number, acquired, self._shared.engine, group), assignment)
            finally:
                await self._writer.close()

    async def _own(self, claim: Claim, assignment: int) -> None:
        """Take records and commit outcomes, until another owner turns up."""
        self.claim = claim
        self._shared.source.seek(self.number, claim.ledger.resume_offset)
        log.info("partition %d is ours: claim %d, from %d", self.number, claim.number, claim.ledger.resume_offset)
        if assignment == self._assignment:
            self._proved = assignment
        else:
            self._prove()
        self.regulate()
        try:
            await self._commit_while_owned(claim)
        finally:
            self.claim = None
            self._shared.source.hold(self.number)
            await claim.drop()

    async def _acquire(self) -> Acquired:
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                async with self._shared.acquiring:
                    # Asked last: after a long wait for its turn a zombie would fence the partition's new owner.
                    await self._shared.engine.membership.confirmed()
                    acquired = await self._shared.acquirer.acquire(self.number, self._owner)
            except (KeptClosedError, UnreadableMetadata, IndexDamagedError) as error:
                if self._closed_because != str(error):
                    log.error("partition %d stays closed: %s", self.number, error)  # noqa: TRY400
                self._closed_because = str(error)
                await asyncio.sleep(CLOSED_DELAY_SECONDS)
            except _AGAIN as error:
                log.warning("partition %d could not be acquired, trying again: %s", self.number, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY_SECONDS)
            else:
                self._closed_because = None
                self._shared.engine.metrics.claimed(taken_over=acquired.careful_until > 0, lost=len(acquired.lost))
                return acquired

    async def _commit_while_owned(self, claim: Claim) -> None:
        topics = self._shared.engine.topics
        outputs = ((topics.assistant_messages, self.number), (topics.finished_runs, self.number))
        while True:
            if await claim.outbox.stirring():
                self._open_writer.begin(outputs)
            batch = await claim.outbox.due()
            records = [record for item in batch.ready for record in item.outcome.records]
            state = claim.ledger.state(batch.offsets, released=self._released or self._moving)
            batch.number = state.commit
            offset = self._shared.acquirer.input_offset(self.number, state)
            claim.encoded_size = len(offset.metadata)
            metrics, began = self._shared.engine.metrics, self._shared.engine.clock()
            try:
                await self._open_writer.commit(records, offset)
            except WriteError as error:
                metrics.not_committed(self._shared.engine.clock() - began, type(error).__name__)
                level = logging.WARNING if self._closed_because is None else logging.INFO
                log.log(level, "partition %d: a transaction failed: %s: %s", self.number, type(error).__name__, error)
                if not await self._recover(claim, batch, refused=isinstance(error, Refused)):
                    return
                if isinstance(error, Refused) and batch.refused_as_fallback:
                    await self._wait_for_an_operator(batch, error)
            else:
                if batch.refused_as_fallback:
                    self._closed_because = None
                now = self._shared.engine.clock()
                outcomes = [item.outcome for item in batch.ready]
                metrics.committed(outcomes, now - began, [now - item.ready_at for item in batch.ready])
                claim.committed(batch)
                # A full worker polls in vain for half a second: left to what follows a poll, it had run out of work.
                self.regulate()

    async def _wait_for_an_operator(self, batch: Batch, error: Refused) -> None:
        """Even the fallback of 16 KiB is refused: somebody set a topic's limit so low. Tried again at once, it was a
        new producer and a warning ten times a second, for ever."""
        if self._closed_because is None:
            self._closed_because = f"the brokers refuse the smallest result of offset {min(batch.offsets)}: {error}"
            log.error("partition %d cannot go on: %s", self.number, self._closed_because)
        await asyncio.sleep(min(FIRST_DELAY_SECONDS * 2 ** min(batch.refused_as_fallback, 10), REFUSED_DELAY_SECONDS))

    async def _recover(self, claim: Claim, batch: Batch, *, refused: bool) -> bool:
        """Replace the writer after any exception, and find out whether the batch was committed.

        A fence means a new owner, or that the broker timed our transaction out. Opening a new writer at once would
        make a zombie that just woke fence the live owner, so a heartbeat must be answered first. Returns whether the
        claim is still ours; then its runs go on as if nothing had happened.
        """
        await self._open_writer.close()
        state = await self._reopen()
        if state is None:
            return False
        if (state.owner, state.claim) != (self._owner, claim.number):
            log.warning("partition %d was claimed by another owner: its runs end here", self.number)
            return False
        if state.commit >= batch.number:
            self._shared.engine.metrics.committed([item.outcome for item in batch.ready], None, [])
            claim.committed(batch)
        else:
            claim.outbox.put_back(batch, refused=refused)
        return True

    async def _reopen(self) -> CommitState | None:
        """A new writer, and what is committed; None if somebody left metadata that we cannot read."""
        delay = FIRST_DELAY_SECONDS
        while True:
            await self._shared.engine.membership.confirmed()
            try:
                self._writer, state = await self._shared.acquirer.reopen(self.number)
            except UnreadableMetadata:
                return None
            except _AGAIN as error:
                log.warning("partition %d: no new writer yet: %s", self.number, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY_SECONDS)
            else:
                return state

    @property
    def _open_writer(self) -> ResultWriter:
        if self._writer is None:
            raise RuntimeError("no writer before the partition is acquired")
        return self._writer

    def take(self, record: Record) -> None:
        """A record of this partition was read."""
        if self.claim is not None:
            self.claim.take(record)

    def cancel(self, cancel: CancelRun) -> None:
        """Somebody wants a run cancelled; it may be one of ours."""
        if self.claim is not None:
            self.claim.cancel(cancel)

    def revoked(self) -> "asyncio.Future[None] | None":
        """A rebalance began: the partition may go to another worker, or stay. Done once the log says so.

        If it goes, its runs end here by no fault of theirs, so until it is known every commit says that it is given
        back: strikes are for crashes. Without this a storm of rebalances failed innocent runs with `crash_limit`. An
        idle one says so as well: its next owner would take it for the partition of a worker that vanished, count a
        takeover, and begin its first runs with care.
        """
        self._moving = True
        return None if self.claim is None else self.claim.outbox.force()

    def kept(self) -> None:
        """A rebalance ended and the partition is still, or again, ours.

        It may have been elsewhere for a generation. Runs go on, but nothing new is taken and nothing starts until a
        transaction proved that nobody fenced us: a zombie that woke ran what another worker had long finished.
        """
        self._assignment += 1
        self._moving = False
        if self.claim is not None:
            self._prove()

    def _prove(self) -> None:
        if self.claim is None:
            return
        claim, assignment = self.claim, self._assignment
        claim.may_start.clear()

        def proved(future: "asyncio.Future[None]") -> None:
            if not future.cancelled() and assignment == self._assignment:
                self._proved = assignment
                claim.may_start.set()
                self.regulate()

        claim.outbox.force().add_done_callback(proved)

    def regulate(self) -> None:
        """Fetch or hold, as things stand now."""
        claim = self.claim
        proved, intake = self._proved == self._assignment, self._shared.engine.intake
        if claim is None or not proved or self._draining or claim.full or intake.full_for(claim.held):
            self._shared.source.hold(self.number)
        else:
            self._shared.source.flow(self.number)

    def reached(self, position: int) -> None:
        """Reading reached this offset: holes below it, such as transaction markers, are no work."""
        if self._draining:
            return  # what is read now is thrown away: it must not count as done
        if self.claim is not None and position > self.claim.ledger.next_offset:
            self.claim.ledger.skip_to(position)
            self.claim.outbox.books_changed()

    async def release(self, grace_s: float) -> None:
        """Finish what runs, within the grace, and write that the partition is given back. Then cancel `serve`."""
        self._draining = True
        self.regulate()
        claim = self.claim
        if claim is None:
            return
        try:
            await claim.drain(grace_s)
            async with asyncio.timeout(RELEASE_SECONDS):
                self._released = True
                await claim.outbox.force()
        except (TimeoutError, asyncio.CancelledError):
            log.warning("partition %d could not be released: the next owner takes it over", self.number)
