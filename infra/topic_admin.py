"""Asks a cluster about topics and changes them. Every response's error code is looked at: aiokafka mostly does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    BrokerResponseError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from agentstream.infra.topic_plan import CreateTopic, GrowTopic, SetConfig, Step, TopicFound
from agentstream.producers.connection import KafkaConnection

REQUEST_TIMEOUT_MS = 30_000
CONNECT_SECONDS = 10.0
"""Something that takes connections and never answers cost 31 s of silence."""
_VISIBLE_SECONDS = 30.0
_NO_SUCH_TOPIC = 3
_TOPIC_ALREADY_EXISTS = 36
_NOT_ALLOWED = frozenset({29, 30, 31})
"""TOPIC_, GROUP_ and CLUSTER_AUTHORIZATION_FAILED."""
_COORDINATOR_ON_THE_MOVE = frozenset({14, 15, 16})
"""COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR."""


class TopicsError(Exception):
    """A broker refused something. Its text is one line."""


class RightMissing(TopicsError):
    """This user may not do something. Its text names the right."""


class TopicsMissing(TopicsError):
    """Topics that are needed do not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterState:
    """What the cluster says."""

    brokers: int
    """Nodes that are alive."""
    topics: Mapping[str, TopicFound]
    """Those that were asked for and exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member of a consumer group."""

    client_id: str
    """Its client id."""
    partitions: frozenset[int]
    """Numbers of its partitions; empty while the group rebalances."""


@asynccontextmanager
async def topic_admin(connection: KafkaConnection) -> AsyncIterator["TopicAdmin"]:
    """Connect. Raises aiokafka's KafkaConnectionError if no broker answers."""
    client = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.start()
        except TimeoutError:
            where = connection.bootstrap_servers
            raise KafkaConnectionError(f"{where} takes connections, but did not answer in 10 s") from None
        yield TopicAdmin(client)
    finally:
        await client.close()


class TopicAdmin:
    """A connected admin client. Its methods raise TopicsError for a refusal, aiokafka's KafkaError for the network."""

    def __init__(self, client: AIOKafkaAdminClient) -> None:
        self._client = client

    async def state(self, names: Collection[str]) -> ClusterState:
        """The cluster and those of the topics that exist."""
        # By name: a list of all leaves out what one may not see, and `plan` said that it would create it.
        # aiokafka's own call would have careless brokers create what it asks for.
        request = MetadataRequest(list(names), allow_auto_topic_creation=False)
        cluster = (await self._client._send_request(request)).to_object()
        there = {topic["topic"]: topic for topic in cluster["topics"] if topic["error_code"] != _NO_SUCH_TOPIC}
        for name, topic in there.items():
            _check(topic["error_code"], f"{name} cannot be described", right=f"Describe on topic {name}")
        configs = await self._configs(tuple(there)) if there else {}
        found = {
            name: TopicFound(
                partitions=len(topic["partitions"]),
                replication=len(topic["partitions"][0]["replicas"]) if topic["partitions"] else 0,
                configs=configs[name],
            )
            for name, topic in there.items()
        }
        return ClusterState(brokers=len(cluster["brokers"]), topics=found)

    async def do(self, step: Step) -> None:
        """Do one step and return when every broker that is asked knows of it."""
        match step:
            case CreateTopic():
                await self._create(step)
            case GrowTopic():
                await self._grow(step)
            case SetConfig():
                await self._set(step)

    async def members(self, group_id: str) -> tuple["Member", ...]:
        """The group's members; none where the group does not exist, or its coordinator is only being chosen."""
        try:
            (response,) = await self._client.describe_consumer_groups([group_id])
        except GroupCoordinatorNotAvailableError:
            return ()  # on a new cluster, until the first group is formed
        except GroupAuthorizationFailedError as error:
            raise _right_missing(f"group {group_id} cannot be described", f"Describe on group {group_id}") from error
        group = response.to_object()["groups"][0]
        if group["error_code"] in _COORDINATOR_ON_THE_MOVE:
            return ()
        _check(group["error_code"], f"group {group_id} cannot be described", right=f"Describe on group {group_id}")
        return tuple(
            Member(client_id=member["client_id"], partitions=_assigned(member["member_assignment"]))
            for member in group["members"]
        )

    async def names(self) -> tuple[str, ...]:
        """All topics of the cluster."""
        return tuple(await self._client.list_topics())

    async def delete(self, names: Collection[str]) -> None:
        """Delete topics; those that do not exist are left out."""
        there = await self.names()
        response = await self._client.delete_topics([name for name in names if name in there])
        for name, code in response.topic_error_codes:
            _check(code, f"{name} cannot be deleted")

    async def _create(self, step: CreateTopic) -> None:
        topic = NewTopic(step.name, step.partitions, step.replication, topic_configs=dict(step.configs))
        response = await self._client.create_topics([topic], timeout_ms=REQUEST_TIMEOUT_MS)
        for error in response.to_object()["topic_errors"]:
            if error["error_code"] != _TOPIC_ALREADY_EXISTS:  # somebody else was faster: as good
                what, message = f"{step.name} cannot be created", error.get("error_message")
                _check(error["error_code"], what, message, right=f"Create on topic {step.name}")
        await self._until_visible(step.name, step.partitions)

    async def _grow(self, step: GrowTopic) -> None:
        try:
            await self._client.create_partitions({step.name: NewPartitions(step.after)})
        except BrokerResponseError as error:  # the one call that does look
            if error.errno in _NOT_ALLOWED:
                raise _right_missing(f"{step.name} cannot grow", f"Alter on topic {step.name}") from error
            raise TopicsError(" ".join(str(error).split())) from error
        await self._until_visible(step.name, step.after)

    async def _set(self, step: SetConfig) -> None:
        request = _IncrementalAlterConfigs(step.name, {step.key: step.after})
        response = await self._client._send_to_controller(request)
        for resource in response.to_object()["responses"]:
            what, message = f"{step.key} of {step.name} cannot be set", resource["error_message"]
            _check(resource["error_code"], what, message, right=f"AlterConfigs on topic {step.name}")

    async def _configs(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs: dict[str, dict[str, str]] = {}
        for response in await self._client.describe_configs(resources):
            for resource in response.to_object()["resources"]:
                name = resource["resource_name"]
                what, message = f"settings of {name} cannot be read", resource["error_message"]
                _check(resource["error_code"], what, message, right=f"DescribeConfigs on topic {name}")
                configs[name] = {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}
        return configs

    async def _until_visible(self, name: str, partitions: int) -> None:
        """The controller has answered, the other brokers learn it a little later."""
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while not await self._is_visible(name, partitions):
            if time.monotonic() > deadline:
                raise TopicsError(f"{name} did not get {partitions} leaders within {_VISIBLE_SECONDS:.0f} s")
            await asyncio.sleep(0.05)

    async def _is_visible(self, name: str, partitions: int) -> bool:
        for topic in await self._client.describe_topics():
            if topic["topic"] == name and topic["error_code"] == 0:
                led = [part for part in topic["partitions"] if part["error_code"] == 0 and part["leader"] >= 0]
                return len(led) >= partitions
        return False


def _assigned(raw: bytes) -> frozenset[int]:
    if not raw:
        return frozenset()
    assignment = ConsumerProtocolMemberAssignment.decode(raw).assignment
    return frozenset(number for _, numbers in assignment for number in numbers)


def _check(code: int, what: str, message: str | None = None, *, right: str = "") -> None:
    if code in _NOT_ALLOWED and right:
        raise _right_missing(what, right)
    if code:
        why = message or getattr(for_code(code), "message", for_code(code).__name__)
        raise TopicsError(f"{what}: {' '.join(str(why).split())}")


def _right_missing(what: str, right: str) -> RightMissing:
    return RightMissing(f"{what}: this user lacks the right {right}")


class _IncrementalAlterConfigsResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _IncrementalAlterConfigsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _IncrementalAlterConfigs(Request[_IncrementalAlterConfigsRequest]):  # type: ignore[misc]
    """Sets these and leaves the others; aiokafka's own AlterConfigs takes back all that it does not name."""

    API_KEY = 44

    def __init__(self, topic: str, configs: Mapping[str, str]) -> None:
        self._topic = topic
        self._configs = configs

    def build(self, request_struct_class: type[Any]) -> Any:
        operations = [(name, 0, value) for name, value in self._configs.items()]
        return request_struct_class([(2, self._topic, operations)], False)
