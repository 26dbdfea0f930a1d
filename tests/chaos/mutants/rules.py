"""Seven rules of the engine, and what breaks each of them in the process that calls it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aiokafka.protocol.commit import OffsetFetchRequest

from agentstream.consumers import acquisition, ledger
from agentstream.consumers import metadata as metadata_of
from agentstream.consumers.coordinator import NO_OFFSET, CommittedOffset, GroupCoordinator
from agentstream.consumers.membership import Membership
from agentstream.consumers.metadata import CommitState, UnreadableMetadata
from agentstream.consumers.partition import Partition
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.results import ResultWriter
from agentstream.schemas.records import OutgoingRecord


def _put(owner: object, name: str, changed: object) -> None:
    # A rule that moved elsewhere must not become a mutant that changes nothing.
    if not hasattr(owner, name):
        raise AttributeError(f"{owner} has no {name} to break")
    setattr(owner, name, changed)


def one_transactional_id_per_process() -> None:
    """A new owner's start fences nobody: what the former one has under way is committed as well."""
    build = ResultWriter.__init__

    def init(
        self: ResultWriter,
        connection: KafkaConnection,
        group_id: str,
        *,
        transactional_id: str,
        max_record_bytes: int,
        transaction_timeout_ms: int,
    ) -> None:
        build(
            self,
            connection,
            group_id,
            transactional_id=f"{group_id}.{os.getpid()}",
            max_record_bytes=max_record_bytes,
            transaction_timeout_ms=transaction_timeout_ms,
        )

    _put(ResultWriter, "__init__", init)


def unchecked_offset_read() -> None:
    """As aiokafka reads it: an error at the top of the answer, or no word of the partition, is "no offset"."""

    async def committed(self: GroupCoordinator, topic: str, partition: int) -> CommittedOffset:
        answer = await self._ask(OffsetFetchRequest(self._group_id, [(topic, [partition])]))
        for name, partitions in answer.topics:
            for number, offset, metadata, _ in partitions:
                if name == topic and number == partition:
                    return CommittedOffset(offset=offset, metadata=metadata or "")
        return CommittedOffset(offset=NO_OFFSET, metadata="")

    _put(GroupCoordinator, "committed", committed)


def futures_not_awaited() -> None:
    """The transaction is committed whatever became of the records that were sent in it."""

    async def send_all(self: ResultWriter, records: Sequence[OutgoingRecord]) -> None:
        for where, batch in self._batches(records):
            _ = await self._send(batch, *where)

    _put(ResultWriter, "_send_all", send_all)


def fence_without_a_heartbeat() -> None:
    """Who was fenced opens a new producer at once. Runs after a gap still wait for a heartbeat: another rule."""
    ask = Membership.confirmed

    async def confirm_after_gap(self: Membership) -> None:
        await ask(self)
        self._doubted = False

    async def confirmed(_: Membership) -> None:
        return

    _put(Membership, "_confirm_after_gap", confirm_after_gap)
    _put(Membership, "confirmed", confirmed)


def kept_partitions_not_checked() -> None:
    """What is ours after a rebalance is taken for ours all the time, and read on."""

    def kept(self: Partition) -> None:
        self._assignment += 1
        self._moving = False
        if self.claim is not None:
            self._proved = self._assignment
            self.regulate()

    _put(Partition, "kept", kept)


def claims_begin_at_one() -> None:
    """Each owner's claim is number 1."""

    def claimed(previous: CommitState, *, owner: str, now_ms: int) -> CommitState:
        return replace(ledger.claimed(previous, owner=owner, now_ms=now_ms), claim=1)

    _put(acquisition, "claimed", claimed)


def unknown_metadata_ignored() -> None:
    """Metadata that this version cannot read counts as none."""

    def decode(offset: int, metadata: str) -> CommitState:
        try:
            return metadata_of.decode(offset, metadata)
        except UnreadableMetadata:
            return CommitState(offset=offset, next_offset=offset)

    _put(acquisition, "decode", decode)


BREAKERS: Mapping[str, Callable[[], None]] = {
    breaker.__name__.replace("_", "-"): breaker
    for breaker in (
        one_transactional_id_per_process,
        unchecked_offset_read,
        futures_not_awaited,
        fence_without_a_heartbeat,
        kept_partitions_not_checked,
        claims_begin_at_one,
        unknown_metadata_ignored,
    )
}
