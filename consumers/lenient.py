"""Records that aiokafka cannot decode: read all the same where that is possible, and told of where it is not.

`be_lenient(consumer)` changes one consumer; nothing of aiokafka is changed for others.

aiokafka decodes what it fetched while it hands it out, so an error comes out of `getmany`. Two things were lost then:
the worker, since a header name that is not UTF-8 is no KafkaError (and each worker in turn, as the record stays where
it is); and every good record before the bad one, of other partitions too, whose positions had moved on. So nothing is
raised here: what stands before the bad place is handed out, and the bad place is noted.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint

UNREADABLE_SECONDS = 30.0
"""Then it is tried again: another broker may lead the partition, or an operator have removed what was broken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """Where a partition cannot be read on."""

    offset: int
    """The first offset that could not be read; the position stays here."""
    why: str
    """One line."""

    @property
    def told(self) -> tuple[int, str]:
        """For a line of the log."""
        return self.offset, self.why


def be_lenient(consumer: Any, unreadable: dict[TopicPartition, Unreadable]) -> None:
    """Let a started aiokafka consumer, which has no partitions yet, note in `unreadable` what it cannot read.

    A note appears before the `getmany` that ran into it returns, and goes when the partition's next fetch is handed
    out. Until the caller pauses the partition it is fetched again and again.
    """
    fetched: dict[TopicPartition, bytes] = {}
    send = consumer._client.send

    async def noting(node_id: int, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            for topic, partitions in response.topics:
                fetched.update({TopicPartition(topic, number): rest[-1] for number, *rest in partitions})
        return response

    consumer._client.send = noting
    consumer._fetcher._records = _Buffered(fetched, unreadable)


class _Buffered(OrderedDict[TopicPartition, Any]):
    """What aiokafka's fetcher has fetched and not handed out, by partition."""

    def __init__(self, fetched: dict[TopicPartition, bytes], unreadable: dict[TopicPartition, Unreadable]) -> None:
        super().__init__()
        self._fetched = fetched
        self._unreadable = unreadable

    def __setitem__(self, where: TopicPartition, result: Any) -> None:
        # Set by the task whose answer was noted, and without a wait in between: these bytes are this result's.
        data = self._fetched.pop(where, None)
        if data is not None and (strict := getattr(result, "_partition_records", None)) is not None:
            result._partition_records = _Careful(where, strict, data, self._unreadable)
        super().__setitem__(where, result)


class _Careful:
    """Stands in for aiokafka's PartitionRecords. Never raises anything but StopIteration."""

    def __init__(
        self, where: TopicPartition, strict: Any, data: bytes, unreadable: dict[TopicPartition, Unreadable]
    ) -> None:
        self._where = where
        self._records = strict
        self._data: bytes | None = data
        self._aborted = list(strict._aborted_transactions)
        self._floor: int = strict.next_fetch_offset
        self._unreadable = unreadable

    @property
    def next_fetch_offset(self) -> int:
        """The next position."""
        reached: int = self._records.next_fetch_offset
        return max(self._floor, reached)

    def __iter__(self) -> Iterator[Any]:
        """What is left. May be begun again at any time, as by `getmany` for each part that it hands out."""
        while True:
            try:
                for record in self._records:
                    if record.offset >= self._floor:
                        yield record
            except Exception as error:  # noqa: BLE001 - from a bad header name to a codec's own: aiokafka loses records
                if self._data is None:
                    self._unreadable[self._where] = Unreadable(offset=self.next_fetch_offset, why=_described(error))
                    return
                self._begin_again(self._data)
            else:
                self._unreadable.pop(self._where, None)
                return

    def __next__(self) -> Any:
        return next(iter(self))

    def _begin_again(self, data: bytes) -> None:
        """Read the same bytes leniently, from where the strict reader stopped."""
        self._floor, self._data = self.next_fetch_offset, None
        strict = self._records
        # From the first batch, since what was aborted must be known; records below the floor were handed out.
        self._records = PartitionRecords(
            self._where,
            _LenientBatches(data),
            self._aborted,
            self._floor,
            None,
            None,
            strict._check_crcs,
            strict._isolation_level,
        )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


class _LenientBatches(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of one fetch."""

    def next_batch(self) -> Any:
        batch = self._next_slice
        if batch is None:
            return None
        if len(batch) < self.MIN_SLICE:
            raise CorruptRecordException(f"a batch of {len(batch)} bytes")
        self._cache_next()
        magic = batch[self.MAGIC_OFFSET]
        return _LenientBatch(batch) if magic >= 2 else LegacyRecordBatch(batch, magic)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names may be any bytes: what is not UTF-8 is written as `\\xff`."""

    def _read_msg(self) -> Any:
        length = self._varint()
        start: int = self._pos
        self._varint()  # attributes, of which there are none
        delta = self._varint()
        timestamp = self.max_timestamp if self.timestamp_type == self.LOG_APPEND_TIME else self.first_timestamp + delta
        offset = self.base_offset + self._varint()
        key, value = self._bytes(), self._bytes()
        headers = []
        for _ in range(self._varint()):
            name = self._bytes()
            if name is None:
                raise CorruptRecordException("a header without a name")
            headers.append((name.decode("utf-8", "backslashreplace"), self._bytes()))
        if self._pos - start != length:
            raise CorruptRecordException(f"a record of {length} bytes was read as {self._pos - start}")
        return _DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)

    def _varint(self) -> int:
        number: int
        position: int
        number, position = decode_varint(self._buffer, self._pos)
        self._pos: int = position
        return number

    def _bytes(self) -> bytes | None:
        length = self._varint()
        if length < 0:
            return None
        begin = self._pos
        self._pos += length
        return bytes(self._buffer[begin : self._pos])
