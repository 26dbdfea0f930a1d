"""The next transaction of a producer begins as soon as the brokers have completed the last one.

After a commit was answered they still write its markers, for 1 to 2 ms where nothing else goes on, and refuse whatever
begins before that. aiokafka asks again after a hard 20 ms, so that a transaction begun back to back took 25 ms instead
of 4. Here it asks again after 1 ms, then 2, 4, … up to those 20.
"""

from collections.abc import Iterable
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.errors import ConcurrentTransactions
from aiokafka.producer.sender import AddOffsetsToTxnHandler, AddPartitionsToTxnHandler
from aiokafka.structs import TopicPartition

FIRST_SECONDS: Final = 0.001
LAST_SECONDS: Final = 0.02


def begin_promptly(sender: Any) -> None:
    """Have this sender of a transactional producer, not started yet, ask again in our rhythm."""
    patience = Patience()

    async def coordinator() -> int:
        transactional_id = sender._txn_manager.transactional_id
        node: int = await sender._find_coordinator(CoordinationType.TRANSACTION, transactional_id)
        return node

    async def add_partitions(partitions: set[TopicPartition]) -> None:
        await _AddPartitions(sender, partitions, patience).do(await coordinator())

    async def add_offsets(group_id: str) -> None:
        await _AddOffsets(sender, group_id, patience).do(await coordinator())

    # Which of them begins a transaction depends on whether there are records in it.
    sender._do_add_partitions_to_txn = add_partitions
    sender._do_add_offsets_to_txn = add_offsets


class Patience:
    """How long to wait before asking the brokers once more."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def after(self, errors: Iterable[int], otherwise: float | None) -> float | None:
        """Seconds to wait after an answer with these error codes; `otherwise`: as aiokafka would; None: all is done."""
        if ConcurrentTransactions.errno not in errors:
            self._next = FIRST_SECONDS
            return otherwise
        seconds, self._next = self._next, min(2 * self._next, LAST_SECONDS)
        return seconds


class _AddPartitions(AddPartitionsToTxnHandler):  # type: ignore[misc]
    def __init__(self, sender: Any, partitions: set[TopicPartition], patience: Patience) -> None:
        super().__init__(sender, partitions)
        self._patience = patience

    def handle_response(self, answer: Any) -> float | None:
        errors = [error for _, partitions in answer.errors for _, error in partitions]
        return self._patience.after(errors, super().handle_response(answer))


class _AddOffsets(AddOffsetsToTxnHandler):  # type: ignore[misc]
    def __init__(self, sender: Any, group_id: str, patience: Patience) -> None:
        super().__init__(sender, group_id)
        self._patience = patience

    def handle_response(self, answer: Any) -> float | None:
        return self._patience.after([answer.error_code], super().handle_response(answer))
