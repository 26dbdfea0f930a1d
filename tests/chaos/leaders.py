"""Moves leaders between the brokers of a cluster, by the requests that Kafka's own tools send."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

from tests.support.waiting import patience

TIMEOUT_MS = 30_000
_PREFERRED = 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """One partition and where it is."""

    topic: str
    """Its topic."""
    partition: int
    """Its number."""
    leader: int
    """The node that leads it; −1: none."""
    replicas: tuple[int, ...]
    """The nodes that have it, the preferred leader first."""
    in_sync: frozenset[int]
    """Those that have all of it."""

    @property
    def whole(self) -> bool:
        """Whether it has a leader and every replica is in sync."""
        return self.leader >= 0 and self.in_sync == set(self.replicas)

    def turned(self) -> "Place":
        """The same with the leadership passed on to the next replica."""
        at = self.replicas.index(self.leader) + 1
        return Place(
            topic=self.topic,
            partition=self.partition,
            leader=self.replicas[at % len(self.replicas)],
            replicas=(*self.replicas[at:], *self.replicas[:at]),
            in_sync=self.in_sync,
        )


class _ElectLeadersResponse(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 43
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "results",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("error_code", Int16), ("message", String("utf-8")))),
            ),
        ),
    )


class _ElectLeadersStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 43
    API_VERSION = 1
    RESPONSE_TYPE = _ElectLeadersResponse
    SCHEMA = Schema(
        ("election_type", Int8),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
        ("timeout_ms", Int32),
    )


class _ElectPreferredLeaders(Request[_ElectLeadersStruct]):  # type: ignore[misc]
    """aiokafka has no request for it."""

    API_KEY = 43

    def __init__(self, topics: Sequence[tuple[str, Sequence[int]]]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_ElectLeadersStruct]) -> _ElectLeadersStruct:
        return request_struct_class(_PREFERRED, self._topics, TIMEOUT_MS)


class Leaders:
    """Asks where partitions are, and moves their leaders. Made by `Leaders.of`."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    @classmethod
    @asynccontextmanager
    async def of(cls, bootstrap_servers: str) -> AsyncIterator[Self]:
        """Open an admin client of its own; closed at the end."""
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        try:
            await admin.start()
            yield cls(admin)
        finally:
            await admin.close()

    async def places(self, topics: Sequence[str] | None = None) -> list[Place]:
        """Every partition of these topics, or of all."""
        return [
            Place(
                topic=topic["topic"],
                partition=partition["partition"],
                leader=partition["leader"],
                replicas=tuple(partition["replicas"]),
                in_sync=frozenset(partition["isr"]),
            )
            for topic in await self._admin.describe_topics(None if topics is None else list(topics))
            for partition in topic["partitions"]
        ]

    async def until_whole(self) -> None:
        """Wait until every partition has a leader and all its replicas in sync."""
        async with patience():
            while not all(place.whole for place in await self.places()):
                await asyncio.sleep(0.1)

    async def pass_on(self, topics: Sequence[str]) -> int:
        """Make the next replica of each partition its leader; returns how many there were. Needs all in sync."""
        wanted = [place.turned() for place in await self._led(topics)]
        moved = await self._send(
            AlterPartitionReassignmentsRequest(
                TIMEOUT_MS,
                [(name, [(p.partition, p.replicas, {}) for p in ps], {}) for name, ps in _by_topic(wanted)],
                {},
            )
        )
        assert moved.error_code == 0, moved
        elected = await self._send(
            _ElectPreferredLeaders([(name, [place.partition for place in ps]) for name, ps in _by_topic(wanted)])
        )
        assert elected.error_code == 0, elected
        leaders = {(place.topic, place.partition): place.leader for place in wanted}
        async with patience():
            while {(p.topic, p.partition): p.leader for p in await self.places(topics)} != leaders:
                await asyncio.sleep(0.05)
        return len(wanted)

    async def _led(self, topics: Sequence[str]) -> list[Place]:
        async with patience():
            while True:
                found = await self.places(topics)
                if found and all(place.leader >= 0 for place in found):
                    return found
                await asyncio.sleep(0.1)

    async def nodes(self) -> list[int]:
        """All nodes that live, by number."""
        return sorted(broker["node_id"] for broker in (await self._admin.describe_cluster())["brokers"])

    async def coordinator(self, key: str, *, of_transactions: bool = False) -> int:
        """The node that coordinates a group, or the transactions of an id, once there is one."""
        async with patience():
            while True:
                try:
                    return int(await self._admin.find_coordinator(key, int(of_transactions)))
                except GroupCoordinatorNotAvailableError:
                    await asyncio.sleep(0.1)

    async def _send(self, request: Any) -> Any:
        return await self._admin._send_request(request)


def _by_topic(places: Sequence[Place]) -> list[tuple[str, list[Place]]]:
    names = sorted({place.topic for place in places})
    return [(name, [place for place in places if place.topic == name]) for name in names]
