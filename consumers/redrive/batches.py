"""Dead letters of one partition, sent again in one transaction together with how far the redrive has come."""

import logging
from dataclasses import dataclass, field

from agentstream.consumers.redrive.plan import RedrivePlan
from agentstream.consumers.redrive.steps import Counts
from agentstream.producers.errors import Refused
from agentstream.producers.results import InputOffset, ResultWriter
from agentstream.schemas.records import OutgoingRecord

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 20_000
"""What a redrive that was killed had under way holds readers of the input back for so long, unless it is run again."""
BATCH_BYTES = 4 * 1024 * 1024


@dataclass(kw_only=True, slots=True)
class Batch:
    """What goes into the next transaction of one partition."""

    next_offset: int
    """Behind the last dead letter looked at."""
    records: list[tuple[OutgoingRecord, int]] = field(default_factory=list)
    """What is sent, each with the offset behind its dead letter."""
    counts: Counts = field(default_factory=Counts)
    """What that came to."""

    def is_full(self, most: int) -> bool:
        """Whether it is to be sent: `most` dead letters are in it, or very many others were passed over."""
        size = sum(record.size for record, _ in self.records)
        return len(self.records) >= most or size >= BATCH_BYTES or self.counts.looked_at >= 100 * most


class BatchWriter:
    """Sends batches. `open` fences whoever redrives under the same name, also again after an error; `close` ends it.

    Raises what `ResultWriter` does.
    """

    def __init__(self, plan: RedrivePlan) -> None:
        self._plan = plan
        self._writer: ResultWriter | None = None

    async def open(self) -> None:
        """Begin, or begin anew."""
        await self.close()
        plan = self._plan
        self._writer = ResultWriter(
            plan.connection,
            plan.group_id,
            transactional_id=plan.group_id,
            max_record_bytes=plan.max_record_bytes,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        await self._writer.open()

    async def close(self) -> None:
        """End it, if it is open."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()

    async def write(self, partition: int, batch: Batch) -> None:
        """All of it. Refused: none of it was written, for one of its records."""
        await self._commit([record for record, _ in batch.records], partition, batch.next_offset)

    async def write_one_by_one(self, partition: int, batch: Batch) -> None:
        """The brokers refuse a batch for one of its records: find out which, and send the others."""
        for record, next_offset in batch.records:
            await self.open()
            try:
                await self._commit([record], partition, next_offset)
            except Refused:
                await self.open()
                await self._commit([], partition, next_offset)
                batch.counts.sent -= 1
                batch.counts.too_large += 1
                log.warning("the brokers refuse the record of %s/%d", self._plan.dead_letters, next_offset - 1)

    async def _commit(self, records: list[OutgoingRecord], partition: int, next_offset: int) -> None:
        assert self._writer is not None
        offset = InputOffset(topic=self._plan.dead_letters, partition=partition, offset=next_offset, metadata="")
        await self._writer.commit(records, offset)
