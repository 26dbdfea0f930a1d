"""Results go out in transactions: records, dead letters, index and the input's offset together, or not at all.

One writer per input partition. Its transactional id is `{group}.{topic}.{partition}`, so that opening a writer fences
the partition's former owner. With one id per *process* the same faults gave 15 and 82 duplicate results of 1,500.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import Fenced, Interrupted, Refused, WriteError
from agentstream.producers.kafka import (
    STOP_SECONDS,
    TRANSACTION_TIMEOUT_MS,
    look_at,
    stop_for_good,
    transactional_producer,
)
from agentstream.producers.next_transaction import begin_ahead, why_it_failed
from agentstream.schemas.records import OutgoingRecord

START_SECONDS = 30.0
FAILED_STOP_SECONDS = 0.5
COMMIT_SHARE = 0.75
"""Of the transaction timeout, for all of a transaction: we give up on it before the broker does. A time of 45 s each
for its records and for its end was 90, and the broker's is 60: what it had ended by itself looked like a new owner."""
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, CorruptRecordException)
_FENCES = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputOffset:
    """Where the group stands in one input partition, as it is committed."""

    topic: str
    """The input topic's full name."""
    partition: int
    """The input partition."""
    offset: int
    """The lowest offset that is not finished."""
    metadata: str
    """The ledger, at most 4,096 characters: one more is fatal to the producer."""


class ResultWriter:
    """Transactions of one input partition. Opened by `open`, closed by `close`; not for concurrent use."""

    def __init__(
        self,
        connection: KafkaConnection,
        group_id: str,
        *,
        transactional_id: str,
        max_record_bytes: int,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
    ) -> None:
        self._group_id = group_id
        self._commit_seconds = COMMIT_SHARE * transaction_timeout_ms / 1000
        self._deadline: float | None = None
        """Of the transaction that was begun."""
        self._failed = False
        self._given_up = False
        self._waiting: asyncio.Timeout | None = None
        self._producer = transactional_producer(
            connection,
            transactional_id,
            max_request_size=max_record_bytes,
            transaction_timeout_ms=transaction_timeout_ms,
            given_up=self._give_up,
        )

    async def open(self) -> Self:
        """Start, fence the partition's former owner and settle its transaction. Raises WriteError."""
        with self._noting_failure():
            async with _translated(asyncio.get_running_loop().time() + START_SECONDS, in_doubt=False):
                await self._producer.start()
        self._given_up = False  # a start that arrives late fences us, no more
        return self

    async def close(self) -> None:
        """End everything, in bounded time; never raises. An open transaction is aborted by the next owner's start.

        What failed is not waited for: over a connection that was forgotten it took 5 to 15 s in which nobody had a
        writer, and came to nothing.
        """
        await stop_for_good(self._producer, FAILED_STOP_SECONDS if self._failed else STOP_SECONDS)

    def begin(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Begin the transaction of the next `commit` now, and do not wait for it: records are on their way to these
        topics and partitions. If that fails, the commit does.

        Nothing is written by it, so no reader is held up. Of the five requests, one after the other, of which a
        transaction consists, the first two are answered by the time that a run's deltas are: 0.6 ms sooner.
        """
        if self._deadline is None and begin_ahead(
            self._producer._sender, [TopicPartition(*each) for each in partitions], self._group_id
        ):
            self._deadline = asyncio.get_running_loop().time() + self._commit_seconds

    async def commit(self, records: Sequence[OutgoingRecord], offset: InputOffset) -> None:
        """One transaction: all records and the offset. Returns once it is committed. Raises WriteError.

        Every record is acknowledged before the offset is added. A failed produce that nobody awaits is committed over:
        the commit returns OK, the offset moves, and the result is lost. And brokers refuse records while the offset's
        group is being added: side by side, one transaction in eight was tried again 20 ms later.
        """
        with self._noting_failure():
            await self._commit(records, offset)

    async def _commit(self, records: Sequence[OutgoingRecord], offset: InputOffset) -> None:
        begun, self._deadline = self._deadline, None
        deadline = begun or asyncio.get_running_loop().time() + self._commit_seconds
        async with self._until_given_up(deadline, in_doubt=False):
            if begun is None:
                await self._producer.begin_transaction()
            try:
                await self._send_all(records)
                await self._send_offset(offset)
            except IllegalOperation as error:
                # It failed before, and aiokafka says no more than that there is none.
                raise (why_it_failed(self._producer._sender) if begun else None) or error from None
        async with self._until_given_up(deadline, in_doubt=True):
            await self._producer.commit_transaction()

    def _give_up(self) -> None:
        """A connection was closed on which something was asked, and that may arrive yet: an end, to which aiokafka got
        no answer and asked again, would end the transaction after that one, in its middle. So this producer begins no
        other one; the next one's start fences what is late."""
        if not self._given_up:
            self._given_up = True
            if self._waiting is not None:
                self._waiting.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def _until_given_up(self, deadline: float, *, in_doubt: bool) -> AsyncIterator[None]:
        async with _translated(deadline, in_doubt=in_doubt) as bound:
            self._waiting = bound
            try:
                if self._given_up:
                    raise TimeoutError
                yield
            finally:
                self._waiting = None

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except WriteError:
            self._failed = True
            raise

    async def _send_all(self, records: Sequence[OutgoingRecord]) -> None:
        sent = [await self._send(batch, *where) for where, batch in self._batches(records)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if errors:
            # The refusal of one record fails its batch and may fail later ones in other words: the cause goes first.
            raise next((error for error in errors if isinstance(error, _REFUSALS)), errors[0])

    async def _send_offset(self, offset: InputOffset) -> None:
        partition = TopicPartition(offset.topic, offset.partition)
        position = OffsetAndMetadata(offset.offset, offset.metadata)
        await self._producer.send_offsets_to_transaction({partition: position}, self._group_id)

    def _batches(self, records: Sequence[OutgoingRecord]) -> list[tuple[tuple[str, int], BatchBuilder]]:
        """The records as few batches, in order, each with its topic and partition. For each record that is sent alone
        aiokafka looks up its partition and makes a future: 11 µs instead of 6."""
        batches = list[tuple[tuple[str, int], BatchBuilder]]()
        last = dict[tuple[str, int], BatchBuilder]()
        for record in records:
            where = (record.topic, record.partition)
            if where not in last or not _add(last[where], record):
                last[where] = self._producer.create_batch()
                batches.append((where, last[where]))
                _add(last[where], record)
        return batches

    async def _send(self, batch: BatchBuilder, topic: str, partition: int) -> "asyncio.Future[object]":
        future: asyncio.Future[object] = await self._producer.send_batch(batch, topic, partition=partition)
        # If a later send raises, nobody awaits this one, and asyncio would print its error at some later time.
        future.add_done_callback(look_at)
        return future


def _add(batch: BatchBuilder, record: OutgoingRecord) -> bool:
    """Append the record; False if the batch is full. An empty one takes any."""
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
    return added is not None


@contextlib.asynccontextmanager
async def _translated(deadline: float, *, in_doubt: bool) -> AsyncIterator[asyncio.Timeout]:
    """Bound the time and raise our own error tree instead of aiokafka's many."""
    try:
        async with asyncio.timeout_at(deadline) as bound:
            yield bound
    except _FENCES as error:
        raise Fenced(f"{type(error).__name__}") from error
    except _REFUSALS as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    except TimeoutError as error:
        raise Interrupted("no answer in time", in_doubt=in_doubt) from error
    except (KafkaError, AssertionError, IllegalOperation, OSError) as error:
        # AssertionError: `begin_transaction` on a fenced producer, and `send` to a partition that does not exist.
        # IllegalOperation, which is no KafkaError: a producer that was fenced since the send before is "not in a
        # transaction". It ended the whole worker when a partition came back after it had been elsewhere.
        raise Interrupted(f"{type(error).__name__}: {error}", in_doubt=in_doubt) from error


__all__ = ["InputOffset", "ResultWriter", "WriteError"]
