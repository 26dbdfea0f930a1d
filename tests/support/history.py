"""Every offset a group ever committed, with its metadata, read from the broker's own `__consumer_offsets`."""

from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any

from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, String

from agentstream.consumers.metadata import CommitState, decode
from tests.chaos.log import GROUP_OFFSETS, decided, read_topic
from tests.support.waiting import patience

_TEXT = String("utf-8")


@dataclass(frozen=True)
class Commit:
    """One committed offset of one partition."""

    offset: int
    metadata: str

    @property
    def state(self) -> CommitState:
        """What it says."""
        return decode(self.offset, self.metadata)


async def read_history(bootstrap_servers: str, group_id: str, topic: str, partition: int) -> list[Commit]:
    """All commits for a partition that were not rolled back, oldest first."""
    wanted = (group_id, topic, partition)
    async with patience():
        await decided(bootstrap_servers, GROUP_OFFSETS)
    # The audit decodes keys as text; those of offset commits are ASCII here.
    lines = [line for line in await read_topic(bootstrap_servers, GROUP_OFFSETS) if _key(line.key.encode()) == wanted]
    return [_commit(line.value) for line in lines if line.value]


def _key(raw: bytes) -> tuple[str, str, int] | None:
    data = BytesIO(raw)
    if Int16.decode(data) not in (0, 1):
        return None
    return _TEXT.decode(data), _TEXT.decode(data), Int32.decode(data)


def _commit(raw: bytes) -> Commit:
    data = BytesIO(raw)
    version = Int16.decode(data)
    offset = Int64.decode(data)
    if version >= 3:
        Int32.decode(data)  # leader epoch
    text: Any = CompactString("utf-8") if version >= 4 else _TEXT
    return Commit(offset, text.decode(data) or "")


def claims(history: list[Commit]) -> list[int]:
    """The claims in the order in which they ruled; a number that comes back stands there twice."""
    return [number for number, _ in groupby(commit.state.claim for commit in history)]
