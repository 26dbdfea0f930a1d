"""Questions to the group's coordinator that aiokafka asks wrongly or not at all, on a connection of our own.

aiokafka ignores the top-level error code of OffsetFetch: a coordinator that is still loading reads as "no committed
offset" (28 times over 1.5 s after a broker restart), and 37 results were repeated when that was believed. On the
consumer's own connection an offset read would also wait behind a pending JoinGroup: 1.9–4.9 s.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest

from agentstream.producers.answers import expect_answers
from agentstream.producers.connection import KafkaConnection

ANSWER_SECONDS = 5.0
"""Short, so that a broker that died is noticed here before the session times out."""
ASK_SECONDS = 10.0
"""In all, with the search for the coordinator. Longer than an answer, or nobody would close what gave none: cut off a
moment before each time-out of aiokafka's, a worker asked over a forgotten connection for ever."""
NO_OFFSET = -1
_REBALANCING = frozenset({22, 25, 27})
"""ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS."""


class CoordinatorError(Exception):
    """No answer, or an error for an answer. Ask again."""


class Standing(Enum):
    """What the coordinator says of a member."""

    MEMBER = "member"
    REBALANCING = "rebalancing"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedOffset:
    """What the group has committed for a partition."""

    offset: int
    """NO_OFFSET if the coordinator is sure that there is none."""
    metadata: str
    """As it was committed; empty where there is none."""


class GroupCoordinator:
    """Asks the coordinator of one group. Opened and closed by `async with`; safe for concurrent use."""

    def __init__(self, connection: KafkaConnection, group_id: str) -> None:
        options = connection.client_options()
        self._client = AIOKafkaClient(**options)
        expect_answers(self._client, connection, ANSWER_SECONDS)
        self._group_id = group_id
        self._node: int | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._client.bootstrap()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def committed(self, topic: str, partition: int) -> CommittedOffset:
        """The committed offset and its metadata. Raises CoordinatorError unless the answer is sure."""
        answer = await self._ask(OffsetFetchRequest(self._group_id, [(topic, [partition])]))
        self._check(answer.error_code)
        for name, partitions in answer.topics:
            for number, offset, metadata, code in partitions:
                if name == topic and number == partition:
                    self._check(code)
                    return CommittedOffset(offset=offset, metadata=metadata or "")
        raise CoordinatorError(f"the answer says nothing of {topic}/{partition}")

    async def standing(self, generation: int, member_id: str) -> Standing:
        """Whether this member of this generation is still in the group. Raises CoordinatorError without an answer."""
        answer = await self._ask(HeartbeatRequest(self._group_id, generation, member_id))
        if answer.error_code in _REBALANCING:
            return Standing.REBALANCING
        self._check(answer.error_code)
        return Standing.MEMBER

    async def partition_count(self, topic: str) -> int:
        """How many partitions a topic has now, 0 if it does not exist. Raises CoordinatorError without an answer."""
        self._client.add_topic(topic)
        # An update that was under way when the topic was added does not ask for it, and is the one we wait for first.
        for _ in range(2):
            await self._update_metadata()
            if partitions := self._client.cluster.partitions_for_topic(topic):
                return len(partitions)
        return 0

    async def _update_metadata(self) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                updated: bool = await self._client.force_metadata_update()
        except (KafkaError, OSError, TimeoutError) as error:
            raise CoordinatorError(f"no metadata: {error!r}") from error
        if not updated:
            # Taken for an answer, it made every topic one of 0 partitions while the brokers were away.
            raise CoordinatorError("no broker answers a question for metadata")

    async def _ask(self, request: Any) -> Any:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                if self._node is None:
                    self._node = await self._find()
                return await self._client.send(self._node, request, group=ConnectionGroup.COORDINATION)
        except GroupAuthorizationFailedError as error:
            self._node = None
            raise CoordinatorError(
                f"this user lacks the right Describe on group {self._group_id} (GroupAuthorizationFailed)"
            ) from error
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            self._node = None
            raise CoordinatorError(f"the group's coordinator does not answer: {error!r}") from error

    async def _find(self) -> int:
        node: int = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group_id)
        if not await self._client.ready(node, group=ConnectionGroup.COORDINATION):
            # The node's address may be newer than our metadata.
            await self._client.force_metadata_update()
        return node

    def _check(self, code: int) -> None:
        if code != 0:
            self._node = None
            raise CoordinatorError(f"the group's coordinator answers {for_code(code).__name__}")
