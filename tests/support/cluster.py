"""One test's topics on a real Kafka: what callers, readers and operators do to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata

from agentstream.consumers.coordinator import GroupCoordinator
from agentstream.consumers.kafka import group_consumer
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer, transactional_producer
from agentstream.producers.requests import RequestProducer, Submitted
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES, Topics
from tests.chaos.audit import end_offsets, read_log, violations
from tests.support.history import Commit, read_history
from tests.support.tail import Tail
from tests.support.waiting import patience


class Cluster:
    """The topics under one prefix, and the group of their workers. Made by `cluster_of`."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topics = Topics(prefix=prefix)
        self.group_id = f"{prefix}workers"
        self.tail: Tail
        self._admin: Any
        self._requests: RequestProducer

    @asynccontextmanager
    async def opened(self, partitions: int) -> AsyncIterator["Cluster"]:
        """Make the topics, and open what callers, readers and operators use."""
        async with AsyncExitStack() as stack:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
            stack.push_async_callback(self._admin.close)
            await self._admin.start()
            plans = self.topics.plan(partitions)
            await self._admin.create_topics(
                [
                    NewTopic(
                        plan.name,
                        plan.partitions,
                        1,
                        topic_configs={"max.message.bytes": str(plan.max_message_bytes)},
                    )
                    for plan in plans
                ]
            )
            requests = RequestProducer(
                lambda: idempotent_producer(self.connection, max_request_size=MAX_REQUEST_BYTES), self.topics
            )
            self._requests = await stack.enter_async_context(requests)
            self.tail = await stack.enter_async_context(Tail(self.connection, self.topics, partitions))
            yield self

    @property
    def connection(self) -> KafkaConnection:
        """A test's own way to the brokers, past any proxy."""
        return KafkaConnection(bootstrap_servers=self.bootstrap_servers, client_id="test")

    async def submit(self, run_id: str | None = None, *, text: str = "hi", session: str | None = None) -> Submitted:
        """Put one request on the topic; its session is the run's own unless named."""
        request = InvokeRequest(id=run_id, session_id=session, messages=(Message.of_text("user", text),))
        return await self.send(request)

    async def send(self, request: InvokeRequest) -> Submitted:
        """Put any request on the topic."""
        return await self._requests.submit(request)

    async def submit_all(self, *run_ids: str) -> None:
        """One request after the other."""
        for run_id in run_ids:
            await self.submit(run_id)

    async def submit_in_transaction(self, *run_ids: str, commit: bool) -> None:
        """Requests of a caller who writes in transactions; not committed, they leave nothing but holes."""
        name = f"{self.topics.prefix}caller"
        async with transactional_producer(self.connection, name, max_request_size=MAX_REQUEST_BYTES) as producer:
            await producer.begin_transaction()
            for run_id in run_ids:
                request = InvokeRequest(id=run_id, messages=(Message.of_text("user", "hi"),))
                await producer.send_and_wait(self.topics.invoke_requests, request.to_bytes(), partition=0)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def history(self, partition: int = 0) -> list[Commit]:
        """Every commit of the group for a partition, oldest first."""
        return await read_history(self.bootstrap_servers, self.group_id, self.topics.invoke_requests, partition)

    async def until_group_reached(self, group_id: str, topic: str, offset: int) -> None:
        """Wait until any group has committed this offset of a topic's first partition, or a higher one."""
        async with patience(), GroupCoordinator(self.connection, group_id) as coordinator:
            while (await coordinator.committed(topic, 0)).offset < offset:
                await asyncio.sleep(0.05)

    async def committed(self, partition: int = 0) -> Commit:
        """What the group has committed now."""
        async with GroupCoordinator(self.connection, self.group_id) as coordinator:
            answer = await coordinator.committed(self.topics.invoke_requests, partition)
        return Commit(answer.offset, answer.metadata)

    async def audit(self, *run_ids: str) -> None:
        """Check all promises on the log, once the workers have stopped: these runs, and no others, have a result."""
        # Its tests set the group's offsets as operators do: what was committed before says nothing.
        log = await read_log(self.bootstrap_servers, self.topics, self.group_id, commits=False)
        assert violations(log, run_ids) == []
        assert {line.body["run_id"] for line in log.results} == set(run_ids)

    async def end_of(self, topic: str, partition: int = 0) -> int:
        """A topic's end offset."""
        return (await end_offsets(self.bootstrap_servers, topic))[partition]

    async def until_end_of(self, topic: str, end: int) -> None:
        """Wait until a topic's first partition ends there, or further on."""
        async with patience():
            while await self.end_of(topic) < end:
                await asyncio.sleep(0.05)

    async def until_marked(self, started: int) -> None:
        """Wait until so many runs stand as started in the committed metadata."""
        async with patience():
            while sum(entry.started for entry in (await self.committed()).state.open.values()) < started:
                await asyncio.sleep(0.05)

    async def until_seen(self, requests: int) -> None:
        """Wait until the committed metadata speaks of so many requests."""
        async with patience():
            while (await self.committed()).state.next_offset < requests:
                await asyncio.sleep(0.05)

    async def until_committed(self, offset: int, partition: int = 0) -> None:
        """Wait until the group has committed this offset, or a higher one."""
        async with patience():
            while (await self.committed(partition)).offset < offset:
                await asyncio.sleep(0.05)

    async def configure(self, topic: str, **properties: int | str) -> None:
        """Set properties of a topic, written with `_` for `.`, and wait until the broker knows them."""
        configs = {name.replace("_", "."): str(value) for name, value in properties.items()}
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs)
        answers = await self._admin.alter_configs([wanted])
        assert [code for answer in answers for code, *_ in answer.resources] == [0]
        known: dict[str, str] = {}
        async with patience():
            while known != configs:
                (answer,) = await self._admin.describe_configs([wanted])
                known = {entry[0]: entry[1] for resource in answer.resources for entry in resource[-1]}

    async def make_topic(self, name: str) -> None:
        """One more topic, with one partition."""
        await self._admin.create_topics([NewTopic(name, 1, 1)])

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        await self._admin.delete_topics([topic])

    async def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        await self._admin.create_partitions({topic: NewPartitions(partitions)})

    async def expire_requests(self, before: int) -> None:
        """Delete the input's records below an offset, as retention does."""
        await self.expire(self.topics.invoke_requests, before)

    async def expire(self, topic: str, before: int) -> None:
        """Delete any topic's records below an offset of its first partition, as retention does."""
        await self._admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})

    async def delete_group(self) -> None:
        """Delete the group with its offsets, as their expiry does. No worker may be in it."""
        answer = await self._admin._client.send(
            await self._admin.find_coordinator(self.group_id), DeleteGroupsRequest([self.group_id])
        )
        assert [code for _, code in answer.results] == [0]

    async def commit(self, offset: int, metadata: str = "") -> None:
        """Set the group's offset, as an operator's tool does. No worker may be in the group."""
        where = TopicPartition(self.topics.invoke_requests, 0)
        consumer = group_consumer(self.connection, self.group_id, session_timeout_ms=6_000, heartbeat_interval_ms=1_000)
        async with consumer:
            consumer.assign([where])
            await consumer.commit({where: OffsetAndMetadata(offset, metadata)})


@asynccontextmanager
async def cluster_of(bootstrap_servers: str, prefix: str, *, partitions: int = 1) -> AsyncIterator[Cluster]:
    """Fresh topics, with everything a test needs to use and watch them."""
    async with Cluster(bootstrap_servers, prefix).opened(partitions) as cluster:
        yield cluster
