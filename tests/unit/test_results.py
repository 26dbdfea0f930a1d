"""A transaction has one deadline, below the broker's own. In virtual time, over a made-up producer."""

import asyncio

import pytest

from agentstream.producers import results
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import Interrupted
from agentstream.producers.kafka import TRANSACTION_TIMEOUT_MS
from agentstream.producers.results import InputOffset, ResultWriter
from tests.virtual_time import in_virtual_time

OFFSET = InputOffset(topic="in", partition=0, offset=1, metadata="")


class Slow:
    """A producer whose calls take so many seconds."""

    def __init__(self, *, offsets: float, commit: float) -> None:
        self._offsets, self._commit = offsets, commit

    async def begin_transaction(self) -> None: ...

    async def send_offsets_to_transaction(self, _offsets: object, _group: str) -> None:
        await asyncio.sleep(self._offsets)

    async def commit_transaction(self) -> None:
        await asyncio.sleep(self._commit)


@pytest.mark.parametrize(
    ("offsets", "commit", "in_doubt"), [(40.0, 40.0, True), (0.0, 1e6, True), (1e6, 0.0, False), (44.9, 44.9, True)]
)
def test_a_slow_transaction_is_given_up_before_the_broker_ends_it(
    offsets: float, commit: float, monkeypatch: pytest.MonkeyPatch, *, in_doubt: bool
) -> None:
    # Each phase had 45 s of its own: after 60 the broker fences us, which looks like a new owner.
    monkeypatch.setattr(results, "transactional_producer", lambda *_, **__: Slow(offsets=offsets, commit=commit))

    async def scenario() -> None:
        writer = ResultWriter(KafkaConnection(bootstrap_servers=""), "g", transactional_id="t", max_record_bytes=1)
        with pytest.raises(Interrupted) as raised:
            await writer.commit([], OFFSET)
        assert raised.value.in_doubt is in_doubt
        assert asyncio.get_running_loop().time() < TRANSACTION_TIMEOUT_MS / 1000

    in_virtual_time(scenario())


def test_a_transaction_within_its_time_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "transactional_producer", lambda *_, **__: Slow(offsets=20.0, commit=20.0))

    async def scenario() -> None:
        writer = ResultWriter(KafkaConnection(bootstrap_servers=""), "g", transactional_id="t", max_record_bytes=1)
        await writer.commit([], OFFSET)

    in_virtual_time(scenario())
