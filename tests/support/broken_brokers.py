"""Brokers that break as a test says, behind aiokafka's producer: what an idempotent one would have written."""

import asyncio
from collections.abc import Sequence
from typing import cast

from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from agentstream.producers.kafka import Producer


class BrokenBrokers:
    """Hands out producers. Unless told otherwise every record is written and acknowledged at once."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.started: list[float] = []
        self.holding = False
        self.start_errors: list[Exception] = []
        self.send_errors: dict[bytes, Exception] = {}
        self.too_large: set[bytes] = set()
        self.in_batches = False
        """All that is answered together is one batch, refused with any record in it that is too large."""
        self.current: _Producer | None = None

    def new_producer(self) -> Producer:
        return cast("Producer", _Producer(self))

    def hold(self) -> None:
        """Acknowledge nothing from now on."""
        self.holding = True

    def acknowledge(self, count: int | None = None, *, all_else_held: bool = False) -> None:
        """Write and acknowledge the oldest records under way, all of them by default."""
        self.holding = all_else_held or count is not None
        if self.current is not None:
            self.current.answer(count)

    def break_down(self, *, written: int = 0) -> None:
        """Fail everything under way, after so many of them were written all the same."""
        if self.current is not None:
            self.current.fail(written)


class _Producer:
    def __init__(self, brokers: BrokenBrokers) -> None:
        self._brokers = brokers
        self._under_way: list[tuple[bytes, asyncio.Future[None]]] = []
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

    async def send(
        self, topic: str, *, value: bytes, key: bytes | None, partition: int, headers: Sequence[tuple[str, bytes]]
    ) -> "asyncio.Future[None]":
        assert not self._closed
        assert isinstance(headers, list), "aiokafka takes nothing else"
        if value in self._brokers.send_errors:
            raise self._brokers.send_errors[value]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.append((value, future))
        if not self._brokers.holding:
            self.answer(None)
        return future

    def answer(self, count: int | None) -> None:
        answered, self._under_way = self._under_way[:count], self._under_way[count or len(self._under_way) :]
        together = self._brokers.in_batches and any(value in self._brokers.too_large for value, _ in answered)
        for value, future in answered:
            if together or value in self._brokers.too_large:
                future.set_exception(MessageSizeTooLargeError())
            else:
                self._brokers.written.append(value)
                future.set_result(None)

    def fail(self, written: int) -> None:
        lost, self._under_way = self._under_way, []
        for number, (value, future) in enumerate(lost):
            if number < written:
                self._brokers.written.append(value)
            if not future.done():
                future.set_exception(KafkaConnectionError("gone"))
