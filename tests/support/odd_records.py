"""Records that aiokafka's producer would not write and its consumer cannot read."""

import struct
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from tests.support.waiting import patience

BAD_NAME = b"x-\xff\xfe"
"""A header name in no encoding."""


class _Name(str):
    """A header name of any bytes, for the batch builder."""

    __slots__ = ("raw",)
    raw: bytes

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


def raw_name(raw: bytes) -> str:
    """A header name that is written as these bytes."""
    name = _Name("raw")
    name.raw = raw
    return name


def batch(values: Sequence[bytes], *, headers: Sequence[tuple[bytes, bytes]] = (), codec: int = 0) -> bytes:
    """One batch of records with the key `s`, all with these headers.

    They are of now: a broker looks every five minutes for what its retention no longer covers, and once took the
    requests of a test, which were of 1970, from under it.
    """
    now = time.time_ns() // 1_000_000
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        named = [(raw_name(name), content) for name, content in headers]
        builder.append(offset, now, b"s", value, named)
    return bytes(builder.build())


def at_offset(offset: int, raw: bytes) -> bytes:
    """The same batch at another place of the log; its checksum does not cover that."""
    return struct.pack(">q", offset) + raw[8:]


async def produce(bootstrap_servers: str, topic: str, raw: bytes, *, partition: int = 0) -> int:
    """Write a batch as it is; returns its first offset."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    try:
        await client._wait_on_metadata(topic)
        request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, raw)])])
        async with patience():
            while True:
                node = client.cluster.leader_for_partition(TopicPartition(topic, partition))
                response: Any = await client.send(node, request)
                ((_, ((_, code, offset, *_),)),) = response.topics
                if code == 0:
                    return int(offset)
                # A topic that was just created has no leader for a moment.
                assert for_code(code).retriable, code
                await client.force_metadata_update()
    finally:
        await client.close()
