"""What a `read_committed` reader of all output topics has seen so far."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Self

from aiokafka import TopicPartition

from agentstream.consumers.kafka import log_consumer, stop_consumer, to_record
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.records import Record
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics
from tests.support.waiting import patience


class Tail:
    """Reads along from the topics' beginning. `async with` starts and ends it."""

    def __init__(self, connection: KafkaConnection, topics: Topics, partitions: int) -> None:
        self._consumer = log_consumer(connection)
        self._topics = topics
        self._where = [TopicPartition(topic, number) for topic in topics.outputs for number in range(partitions)]
        self._records: dict[str, list[Record]] = defaultdict(list)
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(self._where)
        self._task = asyncio.create_task(self._read(), name="tail")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await stop_consumer(self._consumer)

    async def _read(self) -> None:
        while True:
            batches = await self._consumer.getmany(timeout_ms=1000)
            async with self._changed:
                for records in batches.values():
                    for raw in records:
                        self._records[raw.topic].append(to_record(raw))
                self._changed.notify_all()

    @property
    def results(self) -> list[InvokeResult]:
        """All results, in log order within a partition."""
        return [InvokeResult.model_validate_json(record.value or b"") for record in self._of("assistant_messages")]

    @property
    def events(self) -> list[StreamEvents]:
        """All records of the delta topic."""
        return [StreamEvents.model_validate_json(record.value or b"") for record in self._of("stream_deltas")]

    @property
    def dead_letters(self) -> Sequence[Record]:
        """All dead letters."""
        return self._of("dead_letters")

    def of(self, topic: str) -> Sequence[Record]:
        """All records of a topic, by its name in `Topics`."""
        return self._of(topic)

    def _of(self, topic: str) -> list[Record]:
        return self._records[getattr(self._topics, topic)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of what was read."""
        async with patience(), self._changed:
            await self._changed.wait_for(condition)

    async def result(self, run_id: str) -> InvokeResult:
        """Wait for the result of a run."""
        await self.until(lambda: any(result.run_id == run_id for result in self.results))
        return next(result for result in self.results if result.run_id == run_id)

    async def all_results(self, *run_ids: str) -> None:
        """Wait until all these runs have a result."""
        await self.until(lambda: {result.run_id for result in self.results} >= set(run_ids))
