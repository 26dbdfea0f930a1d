"""Brokers that break as a test says, behind aiokafka's producer: what an idempotent one would have written."""

import asyncio
from collections.abc import Sequence
from typing import cast

from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from agentstream.producers.kafka import Producer

RECORDS_PER_BATCH = 50


class BrokenBrokers:
    """Hands out producers. Unless told otherwise every batch is written and acknowledged at once.

    As of real ones, a batch is written whole or not at all, and refused with any record in it that is too large.
    A value is known without the blanks at its end, which only make it long.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.around: dict[bytes, tuple[bytes | None, Sequence[tuple[str, bytes]]]] = {}
        """Key and headers that were last given with each value."""
        self.started: list[float] = []
        self.holding = False
        self.start_errors: list[Exception] = []
        self.send_errors: dict[bytes, Exception] = {}
        self.unanswered: set[bytes] = set()
        """Their partition's leader is asked for, and nobody answers: once for each."""
        self.too_large: set[bytes] = set()
        self.current: _Producer | None = None

    def new_producer(self) -> Producer:
        return cast("Producer", _Producer(self))

    def hold(self) -> None:
        """Acknowledge nothing from now on."""
        self.holding = True

    def acknowledge(self, count: int | None = None, *, all_else_held: bool = False) -> None:
        """Write and acknowledge the oldest batches under way, all of them by default."""
        self.holding = all_else_held or count is not None
        if self.current is not None:
            self.current.answer(count)

    def break_down(self, *, written: int = 0) -> None:
        """Fail everything under way, after so many of them were written all the same."""
        if self.current is not None:
            self.current.fail(written)


class _Batch:
    def __init__(self, brokers: BrokenBrokers) -> None:
        self._brokers = brokers
        self.values: list[bytes] = []

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> object | None:
        assert timestamp is None
        assert isinstance(headers, list), "aiokafka takes nothing else"
        if len(self.values) == RECORDS_PER_BATCH:
            return None
        self.values.append(value.rstrip())
        self._brokers.around[self.values[-1]] = (key, headers)
        return self


class _Producer:
    def __init__(self, brokers: BrokenBrokers) -> None:
        self._brokers = brokers
        self._under_way: list[tuple[_Batch, asyncio.Future[None]]] = []
        self._sender = self
        self._message_accumulator = self
        self.client = self
        self.sender_task = None
        self._txn_manager = None
        self._batches: dict[object, list[object]] = {}
        self._pending_batches: set[object] = set()
        self._closed = False

    async def start(self) -> None:
        self._brokers.started.append(asyncio.get_running_loop().time())
        if self._brokers.start_errors:
            raise self._brokers.start_errors.pop(0)
        self._brokers.current = self

    async def stop(self) -> None:
        self._closed = True
        self.fail(0)

    async def close(self) -> None:
        pass

    def fail_all(self, _error: Exception) -> None:
        self.fail(0)

    def create_batch(self) -> _Batch:
        return _Batch(self._brokers)

    async def send_batch(self, batch: _Batch, _topic: str, *, partition: int) -> "asyncio.Future[None]":
        assert not self._closed
        assert partition >= 0
        assert batch.values
        for value in batch.values:
            if value in self._brokers.send_errors:
                raise self._brokers.send_errors[value]
            if value in self._brokers.unanswered:
                self._brokers.unanswered.discard(value)
                await asyncio.Event().wait()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.append((batch, future))
        if not self._brokers.holding:
            self.answer(None)
        return future

    def answer(self, count: int | None) -> None:
        answered, self._under_way = self._under_way[:count], self._under_way[count or len(self._under_way) :]
        for batch, future in answered:
            if self._brokers.too_large.isdisjoint(batch.values):
                self._brokers.written += batch.values
                future.set_result(None)
            else:
                future.set_exception(MessageSizeTooLargeError())

    def fail(self, written: int) -> None:
        lost, self._under_way = self._under_way, []
        for number, (batch, future) in enumerate(lost):
            if number < written:
                self._brokers.written += batch.values
            if not future.done():
                future.set_exception(KafkaConnectionError("gone"))
