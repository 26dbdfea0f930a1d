"""The next transaction of a producer begins as soon as the brokers have completed the last one.

After a commit was answered they still write its markers, for 1 to 2 ms where nothing else goes on, and refuse whatever
begins before that. aiokafka asks again after a hard 20 ms, so that a transaction begun back to back took 25 ms instead
of 4. Here it asks again after 1 ms, then 2, 4, … up to those 20.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.errors import ConcurrentTransactions
from aiokafka.producer.sender import AddOffsetsToTxnHandler, AddPartitionsToTxnHandler
from aiokafka.producer.transaction_manager import TransactionState
from aiokafka.structs import TopicPartition

FIRST_SECONDS: Final = 0.001
LAST_SECONDS: Final = 0.02
_FAILED: Final = (TransactionState.ABORTABLE_ERROR, TransactionState.FATAL_ERROR)


def begin_promptly(sender: Any) -> None:
    """Have this sender of a transactional producer, not started yet, ask again in our rhythm."""
    for_partitions, for_offsets = Patience(), Patience()

    async def coordinator() -> int:
        transactional_id = sender._txn_manager.transactional_id
        node: int = await sender._find_coordinator(CoordinationType.TRANSACTION, transactional_id)
        return node

    async def add_partitions(partitions: set[TopicPartition]) -> None:
        node, adding = await coordinator(), _AddPartitions(sender, partitions, for_partitions)
        group_id, sender.group_ahead = sender.group_ahead, None
        if group_id is None:
            await adding.do(node)
            return
        # The group first, down the same connection: answers come in order, so that no record goes while it is added.
        both = (_AddOffsets(sender, group_id, for_offsets).do(node), adding.do(node))
        for answer in await asyncio.gather(*both, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def add_offsets(group_id: str) -> None:
        await _AddOffsets(sender, group_id, for_offsets).do(await coordinator())

    # Which of them begins a transaction depends on whether there are records in it.
    sender.group_ahead = None
    sender._do_add_partitions_to_txn = add_partitions
    sender._do_add_offsets_to_txn = add_offsets


def begin_ahead(sender: Any, partitions: Iterable[TopicPartition], group_id: str) -> bool:
    """Begin a transaction into which such records and an offset of this group will go, and do not wait for it.

    False: nothing can begin now. Whatever fails on the way fails what is sent later.
    """
    transactions = sender._txn_manager
    if transactions.state is not TransactionState.READY:
        return False
    transactions.begin_transaction()
    sender.group_ahead = group_id
    for partition in partitions:
        transactions.maybe_add_partition_to_txn(partition)
    return True


def why_it_failed(sender: Any) -> BaseException | None:
    """What refused the transaction that was begun, if anything has."""
    waiter: asyncio.Future[None] = sender._txn_manager.wait_for_transaction_end()
    return waiter.exception() if waiter.done() and not waiter.cancelled() else None


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
        if self._sender._txn_manager.state in _FAILED:
            return None  # the group was refused beside it, and aiokafka has forgotten what was to be added
        errors = [error for _, partitions in answer.errors for _, error in partitions]
        return self._patience.after(errors, super().handle_response(answer))


class _AddOffsets(AddOffsetsToTxnHandler):  # type: ignore[misc]
    def __init__(self, sender: Any, group_id: str, patience: Patience) -> None:
        super().__init__(sender, group_id)
        self._patience = patience

    def handle_response(self, answer: Any) -> float | None:
        return self._patience.after([answer.error_code], super().handle_response(answer))
