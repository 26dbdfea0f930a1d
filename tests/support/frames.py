"""Kafka's requests and answers as they lie on the wire, as far as a proxy must understand them."""

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from io import BytesIO
from typing import Any

# Imported whole: the table of request classes is filled by what was imported.
from aiokafka.protocol.api import RequestStruct

Change = Callable[[Any], None]
"""Changes a decoded answer in place."""

HOST = "127.0.0.1"
"""Where every proxy listens."""


class Api(IntEnum):
    """The requests that tests speak of, by API key."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26


@dataclass(frozen=True)
class Call:
    """One request as it came from a client."""

    frame: bytes
    """Header and body, without the size before them."""
    connection: int
    """Number of the client's connection; a client has several."""

    @property
    def api(self) -> int:
        """The API key."""
        return self._header[0]

    @property
    def client_id(self) -> str:
        """Who asks."""
        return self.frame[10 : 10 + self._client_id_length].decode()

    @cached_property
    def request(self) -> Any:
        """The decoded request, an aiokafka struct."""
        return self._class.decode(BytesIO(self.frame[10 + self._client_id_length :]))

    def rewritten(self, answer: bytes, change: Change) -> bytes:
        """The answer to this call with something changed in it."""
        response = self._class.RESPONSE_TYPE.decode(BytesIO(answer[4:]))
        change(response)
        return answer[:4] + bytes(response.encode())

    @cached_property
    def _header(self) -> tuple[int, int, int, int]:
        """API key, version, correlation id, length of the client id (−1: none)."""
        return struct.unpack_from(">hhih", self.frame)

    @property
    def _client_id_length(self) -> int:
        return max(0, self._header[3])

    @property
    def _class(self) -> Any:
        found = _request_classes()[self._header[0], self._header[1]]
        # Of the flexible headers' tagged fields this knows nothing; in aiokafka only admin requests have them.
        assert not found.FLEXIBLE_VERSION
        return found


@cache
def _request_classes() -> Mapping[tuple[int, int], Any]:
    return {(found.API_KEY, found.API_VERSION): found for found in RequestStruct.__subclasses__()}


def setting(**values: object) -> Change:
    """A change that sets fields of an answer, such as `error_code`."""

    def change(response: Any) -> None:
        vars(response).update(values)

    return change


def redirected(call: Call, answer: bytes, ports: Mapping[int, int]) -> bytes:
    """The answer with a proxy's ports in place of the brokers': who asks for addresses learns no others."""

    def move_brokers(response: Any) -> None:
        response.brokers = [(node, HOST, ports[port], *rest) for node, _, port, *rest in response.brokers]

    def move_coordinator(response: Any) -> None:
        if response.port in ports:
            response.host, response.port = HOST, ports[response.port]

    if call.api == Api.METADATA:
        return call.rewritten(answer, move_brokers)
    return call.rewritten(answer, move_coordinator) if call.api == Api.FIND_COORDINATOR else answer


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame, without its size. Raises IncompleteReadError at the end."""
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


async def write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """Send a frame, with its size before it."""
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()
