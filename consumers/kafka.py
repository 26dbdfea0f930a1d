"""The one file that knows aiokafka's consumer: how each kind is built."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from agentstream.consumers.lenient import Unreadable, be_lenient
from agentstream.producers.answers import ANSWER_SECONDS, expect_answers
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import close_connections
from agentstream.schemas.records import Position, Record

STOP_SECONDS = 5.0
FOLLOWER_SESSION_MS = 10_000
REBALANCE_MARGIN_SECONDS = 5.0
"""Brokers answer a join once all members have joined, or the time-out of the session is over."""
FETCH_BYTES_PER_PARTITION = 256 * 1024
"""`pause()` throws prefetched data away, so little is fetched ahead. A larger record still comes, alone."""
_FETCHES = {FetchRequest.API_KEY: 40.0}
"""Fetches of many partitions bring up to 50 MiB: cut short on a slow line, they would come to nothing each time."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, whose `getmany` no record can break: see `lenient`. The rest of the code knows this name."""

    def __init__(self, connection: KafkaConnection, *, answers: Mapping[int, float] = _FETCHES, **options: Any) -> None:
        """`answers`: how many seconds to wait for which, by API key, where it is not as for all others."""
        super().__init__(**connection.client_options(), **options)
        expect_answers(self._client, connection, others=answers)
        self.unreadable: dict[TopicPartition, Unreadable] = {}
        """Where it could not read on. Whoever polls looks here, and pauses what he finds: it is fetched again."""

    async def start(self) -> None:
        """Connect. Raises KafkaError."""
        await super().start()
        be_lenient(self, self.unreadable)

    async def __aexit__(self, *exc_info: object) -> None:
        await stop_consumer(self)


def group_consumer(
    connection: KafkaConnection, group_id: str, *, session_timeout_ms: int, heartbeat_interval_ms: int
) -> Consumer:
    """A member of the workers' group, not started and not subscribed.

    Exactly one assignor: each one in the list costs a join. `auto_offset_reset=none`: the start of a partition is
    ours to set, since a loading coordinator reads as "no committed offset" (37 duplicates when believed).
    """
    return Consumer(
        connection,
        answers=_of_a_member(session_timeout_ms),
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        partition_assignment_strategy=(own_sticky_assignor(),),
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=heartbeat_interval_ms,
        max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
    )


def follower(connection: KafkaConnection, group_id: str) -> Consumer:
    """A member of a group that only looks on, not started and not subscribed; it sets every start itself, too.

    Whoever follows may take hours over what he was given: only its heartbeats say that it lives.
    """
    return Consumer(
        connection,
        answers=_of_a_member(FOLLOWER_SESSION_MS),
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        partition_assignment_strategy=(own_sticky_assignor(),),
        session_timeout_ms=FOLLOWER_SESSION_MS,
        max_poll_interval_ms=24 * 3_600_000,
        max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
    )


def _of_a_member(session_timeout_ms: int) -> dict[int, float]:
    """How long a member of a group waits for what: a heartbeat over a forgotten connection must leave time for another
    one before the session is over."""
    rebalance = session_timeout_ms / 1000 + REBALANCE_MARGIN_SECONDS
    return {
        **_FETCHES,
        JoinGroupRequest.API_KEY: rebalance,
        SyncGroupRequest.API_KEY: rebalance,
        HeartbeatRequest.API_KEY: min(ANSWER_SECONDS, session_timeout_ms / 2000),
    }


def own_sticky_assignor() -> type[StickyPartitionAssignor]:
    """A sticky assignor for one consumer: aiokafka keeps its state on the class, shared by a whole process."""

    class OwnStickyAssignor(StickyPartitionAssignor):  # type: ignore[misc]
        """State of one consumer."""

    return OwnStickyAssignor


def log_consumer(connection: KafkaConnection, *, read_committed: bool = True, from_start: bool = True) -> Consumer:
    """A reader without a group, not started; its partitions are assigned by hand.

    `from_start` says where it goes on when its position has left the log: the log's beginning, or its end.
    """
    return Consumer(
        connection,
        answers={},
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_start else "latest",
        isolation_level="read_committed" if read_committed else "read_uncommitted",
        max_partition_fetch_bytes=1024 * 1024,
    )


def tail_consumer(connection: KafkaConnection, *, read_committed: bool, fetch_bytes: int = 1024 * 1024) -> Consumer:
    """A reader without a group, not started, whose position never jumps by itself: what expired unread is raised."""
    return Consumer(
        connection,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed" if read_committed else "read_uncommitted",
        max_partition_fetch_bytes=fetch_bytes,
    )


async def stop_consumer(consumer: Consumer) -> None:
    """Stop a consumer in bounded time, whatever state it is in.

    aiokafka's own `stop()` raises CancelledError, and leaves tasks and sockets behind, if it finds a fetch that waits
    to be tried again: it cancels that task and awaits it. To its caller that looks like a cancellation of his own. So
    does closing its connections again where a `stop()` that waited for them was cut short: it ended a whole worker.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    finally:
        if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
            stopping.cancel()
            await _end_pieces(consumer)


async def _end_pieces(consumer: Consumer) -> None:
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    tasks: set[asyncio.Task[Any]] = set() if fetcher is None else {fetcher._fetch_task, *fetcher._pending_tasks}
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task"):
        if (task := getattr(coordinator, name, None)) is not None:
            tasks.add(task)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
    await close_connections(consumer._client, STOP_SECONDS)


def to_record(raw: Any) -> Record:
    """Our value for an aiokafka ConsumerRecord."""
    headers: Sequence[tuple[str, bytes]] = tuple([(name, value or b"") for name, value in raw.headers])
    return Record(
        position=Position(topic=raw.topic, partition=raw.partition, offset=raw.offset),
        timestamp_ms=raw.timestamp,
        key=raw.key,
        value=raw.value,
        headers=headers,
    )
