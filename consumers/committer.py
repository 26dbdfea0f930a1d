"""What becomes ready under one claim is committed, one transaction after the other.

commit_while_owned(): begin ahead -> due -> commit -> (a failed transaction) recover, or end: another owner turned up.
"""

import asyncio
import logging
from collections.abc import Callable

from aiokafka.errors import KafkaError

from agentstream.consumers.acquisition import Acquirer
from agentstream.consumers.claim import Claim
from agentstream.consumers.coordinator import CoordinatorError
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import IndexUnreadableError
from agentstream.consumers.metadata import CommitState, UnreadableMetadata
from agentstream.consumers.outbox import Batch
from agentstream.producers.errors import Refused, WriteError
from agentstream.producers.results import ResultWriter

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 2.0
REFUSED_DELAY_SECONDS = 10.0
TRIED_AGAIN = (WriteError, CoordinatorError, IndexUnreadableError, KafkaError, OSError)
"""What passes with time: Kafka, or the way to it."""


class Committer:
    """The transactions of one partition in one assignment. It closes the writer it was given, and those it opens."""

    def __init__(self, partition: int, writer: ResultWriter, acquirer: Acquirer, engine: Engine) -> None:
        self.stuck_because: str | None = None
        """Why nothing can be committed, if a person must look at it."""
        self._partition = partition
        self._writer = writer
        self._acquirer = acquirer
        self._engine = engine

    async def close(self) -> None:
        """Close the writer, in bounded time."""
        await self._writer.close()

    async def commit_while_owned(
        self, claim: Claim, *, giving_back: Callable[[], bool], committed: Callable[[], None]
    ) -> None:
        """Return when the partition has another owner. `committed` is called after each transaction.

        `giving_back` is asked before each one: whether it is to say that the partition is no longer ours.
        """
        topics, metrics, clock = self._engine.topics, self._engine.metrics, self._engine.clock
        outputs = ((topics.assistant_messages, self._partition), (topics.finished_runs, self._partition))
        while True:
            if await claim.outbox.stirring():
                self._writer.begin(outputs)
            batch = await claim.outbox.due()
            records = [record for item in batch.ready for record in item.outcome.records]
            state = claim.ledger.state(batch.offsets, released=giving_back())
            offset = self._acquirer.input_offset(self._partition, state)
            claim.encoded_size = len(offset.metadata)
            began = clock()
            try:
                await self._writer.commit(records, offset)
            except WriteError as error:
                metrics.not_committed(clock() - began, type(error).__name__)
                level = logging.WARNING if self.stuck_because is None else logging.INFO
                name = type(error).__name__
                log.log(level, "partition %d: a transaction failed: %s: %s", self._partition, name, error)
                if not await self._recover(claim, batch, state, refused=isinstance(error, Refused)):
                    return
                if isinstance(error, Refused) and batch.refused_as_fallback:
                    await self._wait_for_an_operator(batch, error)
            else:
                if batch.refused_as_fallback:
                    self.stuck_because = None
                now = clock()
                outcomes = [item.outcome for item in batch.ready]
                metrics.committed(outcomes, now - began, [now - item.ready_at for item in batch.ready])
                claim.committed(batch)
                committed()

    async def _wait_for_an_operator(self, batch: Batch, error: Refused) -> None:
        """Even the fallback of 16 KiB is refused: somebody set a topic's limit so low. Tried again at once, it was a
        new producer and a warning ten times a second, for ever."""
        if self.stuck_because is None:
            self.stuck_because = f"the brokers refuse the smallest result of offset {min(batch.offsets)}: {error}"
            log.error("partition %d cannot go on: %s", self._partition, self.stuck_because)
        await asyncio.sleep(min(FIRST_DELAY_SECONDS * 2 ** min(batch.refused_as_fallback, 10), REFUSED_DELAY_SECONDS))

    async def _recover(self, claim: Claim, batch: Batch, tried: CommitState, *, refused: bool) -> bool:
        """Replace the writer after any exception, and find out whether the batch was committed.

        A fence means a new owner, or that the broker timed our transaction out. Opening a new writer at once would
        make a zombie that just woke fence the live owner, so a heartbeat must be answered first. Returns whether the
        claim is still ours; then its runs go on as if nothing had happened.
        """
        await self._writer.close()
        found = await self._reopen()
        if found is None:
            return False
        if (found.owner, found.claim) != (tried.owner, tried.claim):
            log.warning("partition %d was claimed by another owner: its runs end here", self._partition)
            return False
        if found.commit >= tried.commit:
            self._engine.metrics.committed([item.outcome for item in batch.ready], None, [])
            claim.committed(batch)
        else:
            claim.outbox.put_back(batch, refused=refused)
        return True

    async def _reopen(self) -> CommitState | None:
        """A new writer, and what is committed; None if somebody left metadata that we cannot read."""
        delay = FIRST_DELAY_SECONDS
        while True:
            await self._engine.membership.confirmed()
            try:
                self._writer, state = await self._acquirer.reopen(self._partition)
            except UnreadableMetadata:
                return None
            except TRIED_AGAIN as error:
                log.warning("partition %d: no new writer yet: %s", self._partition, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY_SECONDS)
            else:
                return state
