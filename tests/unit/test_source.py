"""What stands between aiokafka's consumer and us: assignments, membership, polls. A made-up consumer at its seam."""

import asyncio
from collections.abc import Collection
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError

from agentstream.consumers.lenient import Unreadable
from agentstream.consumers.source import POLL_MS, Source
from tests.virtual_time import in_virtual_time


class Assignor:
    generation = -1

    def on_generation_assignment(self, generation: int) -> None:
        self.generation = generation


class Consumer:
    """Knows its assignment; writes down what is done to it."""

    def __init__(self) -> None:
        self._coordinator = self
        self._assignors = [Assignor()]
        self.generation, self.member_id = -1, ""
        self.assigned: set[int] = set()
        self.calls: list[tuple[str, int] | tuple[str, int, int]] = []
        self.answers: list[Exception | None] = []
        self.unreadable: dict[TopicPartition, Unreadable] = {}

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("in", number) for number in self.assigned}

    def pause(self, *where: TopicPartition) -> None:
        self.calls += [("pause", at.partition) for at in self._mine(where)]

    def resume(self, *where: TopicPartition) -> None:
        self.calls += [("resume", at.partition) for at in self._mine(where)]

    def seek(self, where: TopicPartition, offset: int) -> None:
        self.calls += [("seek", at.partition, offset) for at in self._mine((where,))]

    def _mine(self, where: Collection[TopicPartition]) -> Collection[TopicPartition]:
        if not self.assignment().issuperset(where):
            raise IllegalStateError("not assigned")
        return sorted(where)

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[object]]:
        assert (timeout_ms, max_records) == (POLL_MS, 500)
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer
        await asyncio.Event().wait()
        return {}


class Heard:
    """Who hears of rebalances."""

    def __init__(self) -> None:
        self.heard: list[set[int] | None] = []
        self.resumes: dict[int, int] = {}
        self.paused_first = False
        self.consumer: Consumer | None = None

    async def revoked(self) -> None:
        self.heard.append(None)

    def assigned(self, partitions: Collection[int]) -> None:
        self.heard.append(set(partitions))

    def resume_offset(self, partition: int) -> int | None:
        return self.resumes.get(partition)


def made() -> tuple[Source, Consumer, Heard]:
    consumer, heard = Consumer(), Heard()
    return Source(cast("AIOKafkaConsumer", consumer), "in", heard), consumer, heard


def joined(consumer: Consumer, generation: int) -> None:
    """aiokafka has the answer to its JoinGroup; what is assigned comes later."""
    consumer.generation, consumer.member_id = generation, "member"


def assign(source: Source, consumer: Consumer, *partitions: int) -> None:
    consumer.assigned = set(partitions)
    delivery = source._listener.on_partitions_assigned(consumer.assignment())
    # Records are handed out before the listener returns: it must not wait for anything.
    with pytest.raises(StopIteration):
        delivery.send(None)


def test_everything_assigned_is_paused_and_positioned_before_anybody_hears_of_it() -> None:
    source, consumer, heard = made()
    heard.resumes = {2: 40}
    joined(consumer, 3)
    assign(source, consumer, 1, 2)
    assert consumer.calls[:2] == [("pause", 1), ("pause", 2)]
    # One partition without a position blocks fetches from its whole broker.
    assert set(consumer.calls[2:]) == {("seek", 1, 0), ("seek", 2, 40)}
    assert heard.heard == [{1, 2}]
    assert consumer._assignors[0].generation == 3, "or a zombie that wakes could win a conflict"


def test_an_assignment_of_nothing_is_heard_as_well() -> None:
    source, consumer, heard = made()
    joined(consumer, 3)
    assign(source, consumer)
    assert (heard.heard, consumer.calls) == ([set()], [])


def test_a_member_of_a_generation_whose_assignment_has_not_come_is_no_member_yet() -> None:
    # The broker answers its heartbeats all the same: a zombie that just woke would take itself for an owner.
    source, consumer, _ = made()
    assert source.membership == (-1, "")
    joined(consumer, 3)
    assert source.membership == (-1, "")
    assign(source, consumer, 1)
    assert source.membership == (3, "member")
    joined(consumer, 4)
    assert source.membership == (-1, "")
    assign(source, consumer)
    assert source.membership == (4, "member")
    consumer.generation, consumer.member_id = -1, ""
    assert source.membership == (-1, "")


def test_a_partition_is_held_and_let_flow_once_each_and_only_while_it_is_ours() -> None:
    source, consumer, _ = made()
    joined(consumer, 3)
    assign(source, consumer, 1)
    consumer.calls.clear()
    for _ in range(2):
        source.hold(1)
    assert consumer.calls == [], "each pause throws away what was fetched"
    for _ in range(2):
        source.flow(1)
    for _ in range(2):
        source.hold(1)
    assert consumer.calls == [("resume", 1), ("pause", 1)]
    source.flow(7)
    source.hold(7)
    source.flow(1)
    consumer.assigned = set()
    source.hold(1)
    source.seek(1, 5)
    assert consumer.calls == [("resume", 1), ("pause", 1), ("resume", 1)]


def test_after_a_rebalance_what_flowed_is_held_until_it_is_let_flow_again() -> None:
    source, consumer, _ = made()
    joined(consumer, 3)
    assign(source, consumer, 1)
    source.flow(1)
    joined(consumer, 4)
    assign(source, consumer, 1)
    consumer.calls.clear()
    source.flow(1)
    assert consumer.calls == [("resume", 1)]


def test_a_poll_that_waits_for_an_assignment_comes_back_all_the_same() -> None:
    # aiokafka waits for it whatever the time-out says: with the coordinator away nobody looked at a SIGTERM.
    async def scenario() -> None:
        source, consumer, _ = made()
        consumer.answers = [None, None]
        for _ in range(2):
            assert await source.poll() == []
        assert asyncio.get_running_loop().time() == 2 * (POLL_MS / 1000 + 0.5)

    in_virtual_time(scenario())


def test_a_broken_connection_does_not_end_the_polling() -> None:
    async def scenario() -> None:
        source, consumer, _ = made()
        consumer.answers = [KafkaConnectionError("away")]
        assert await source.poll() == []
        assert asyncio.get_running_loop().time() > 0, "nor keep the processor busy"

    in_virtual_time(scenario())
