"""One input partition in this worker, from its assignment until it is lost.

serve(): acquire -> commit what becomes ready (committer.py) -> (another owner turned up) acquire anew -> …
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from uuid_utils.compat import uuid4

from agentstream.consumers.acquisition import Acquired, Acquirer, KeptClosedError
from agentstream.consumers.claim import Claim
from agentstream.consumers.committer import FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS, TRIED_AGAIN, Committer
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import IndexDamagedError
from agentstream.consumers.metadata import UnreadableMetadata
from agentstream.consumers.source import Source
from agentstream.schemas.records import Record
from agentstream.schemas.requests import CancelRun

log = logging.getLogger(__name__)

CLOSED_DELAY_SECONDS = 5.0
RELEASE_SECONDS = 10.0


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
        self._committer: Committer | None = None
        self._assignment = 0
        self._proved = -1
        self._draining = False
        self._released = False
        self._moving = False

    @property
    def closed_because(self) -> str | None:
        """What a person must look at: why it is kept closed, held, or cannot commit. None while all is well."""
        because = self._closed_because or (self._committer.stuck_because if self._committer is not None else None)
        if because is not None:
            return because
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
            self._committer = Committer(self.number, acquired.writer, self._shared.acquirer, self._shared.engine)
            try:
                async with asyncio.TaskGroup() as group:
                    claim = Claim(self.number, acquired, self._shared.engine, group)
                    await self._own(claim, self._committer, assignment)
            finally:
                await self._committer.close()

    async def _own(self, claim: Claim, committer: Committer, assignment: int) -> None:
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
            await committer.commit_while_owned(claim, giving_back=self._is_given_back, committed=self.regulate)
        finally:
            self.claim = None
            self._shared.source.hold(self.number)
            await claim.drop()

    def _is_given_back(self) -> bool:
        return self._released or self._moving

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
            except TRIED_AGAIN as error:
                log.warning("partition %d could not be acquired, trying again: %s", self.number, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY_SECONDS)
            else:
                self._closed_because = None
                self._shared.engine.metrics.claimed(taken_over=acquired.careful_until > 0, lost=len(acquired.lost))
                return acquired

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
        """Fetch or hold, as things stand now.

        After each transaction as well: a full worker polls in vain for half a second, and left to what follows a poll
        it had run out of work.
        """
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
