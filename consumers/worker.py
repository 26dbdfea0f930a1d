"""The spine: records in; runs, events and results out; until told to stop."""

import asyncio
import logging
from collections.abc import Callable, Collection

from aiokafka.errors import KafkaError

from agentstream.consumers.acquisition import Acquirer
from agentstream.consumers.engine import Engine
from agentstream.consumers.partition import Partition, Shared
from agentstream.consumers.source import Assignments, Source
from agentstream.schemas.requests import CancelRun

log = logging.getLogger(__name__)

ACQUIRING_AT_ONCE = 16
GIVE_BACK_SECONDS = 0.5
"""A transaction takes 10 to 40 ms; more than this a rebalance is not held up."""


class Worker:
    """One member of the workers' group. `serve` is its life; everything it is given is opened and closed outside."""

    def __init__(
        self, engine: Engine, new_source: Callable[[Assignments], Source], new_acquirer: Callable[[Source], Acquirer]
    ) -> None:
        self._engine = engine
        self._source = new_source(self)
        self._shared = Shared(
            engine=engine,
            acquirer=new_acquirer(self._source),
            source=self._source,
            acquiring=asyncio.Semaphore(ACQUIRING_AT_ONCE),
        )
        self._partitions: dict[int, Partition] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: dict[int, set[asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self.polled_at: float | None = None
        """When polling last came back, on the engine's clock."""
        self.assigned_once = asyncio.Event()
        engine.control.listen(self.cancel)

    @property
    def partitions(self) -> Collection[Partition]:
        """The partitions that are ours now."""
        return self._partitions.values()

    @property
    def stopping(self) -> bool:
        """Whether it takes nothing new any more."""
        return self._stopping

    @property
    def engine(self) -> Engine:
        """What its partitions share."""
        return self._engine

    @property
    def source(self) -> Source:
        """Where its records come from."""
        return self._source

    async def serve(self, stop: asyncio.Event, *, grace_s: float = 20.0) -> None:
        """Work until `stop` is set; then let started runs finish for `grace_s`, release the partitions and leave.

        Raises for a bug of ours, as an exception group, and aiokafka's KafkaError if it cannot connect at the start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._source.start()
                await self._poll_until(stop.is_set)
                self._stopping = True
                releasing = group.create_task(self._release(grace_s), name="release")
                await self._poll_until(releasing.done)
                for task in self._tasks.values():
                    task.cancel()
        except ExceptionGroup as error:
            _, bugs = error.split(KafkaError)
            if bugs is not None:
                # A worker is not run again with --debug to see what happens once a month.
                log.critical("a bug of ours ends the worker", exc_info=bugs)
            raise
        finally:
            await self._engine.membership.close()
            await self._source.stop()

    async def _poll_until(self, done: Callable[[], bool]) -> None:
        """Never stops polling, whatever happens elsewhere: that would cost the membership."""
        while not done():
            records = await self._source.poll()
            self.polled_at = self._engine.clock()
            self._engine.membership.tick()
            for record in records:
                partition = self._partitions.get(record.position.partition)
                if partition is not None:
                    partition.take(record)
            if not records:
                await self._note_positions()
            for partition in self._partitions.values():
                partition.regulate()

    async def _note_positions(self) -> None:
        for partition in tuple(self._partitions.values()):
            if partition.claim is not None:
                position = await self._source.position(partition.number)
                if position is not None and self._partitions.get(partition.number) is partition:
                    partition.reached(position)

    async def _release(self, grace_s: float) -> None:
        await asyncio.gather(*(partition.release(grace_s) for partition in self._partitions.values()))

    async def revoked(self) -> None:
        """A rebalance began. Runs go on, and their results are committed until we are fenced or the partition is lost:
        waiting here for all that was to be committed cost up to 51 s without results.

        One short transaction is waited for, which says that runs under way are given back. A partition goes to its new
        owner as soon as the last member has joined, often us: not waited for, the note came too late or was cancelled
        with the partition, and each rebalance was a crash in the results of the runs that it moved.
        """
        given_back = [future for each in self._partitions.values() if (future := each.revoked()) is not None]
        if given_back:
            await asyncio.wait(given_back, timeout=GIVE_BACK_SECONDS)

    def assigned(self, partitions: Collection[int]) -> None:
        """These partitions are ours, and no others."""
        for number in set(self._partitions) - set(partitions):
            log.info("partition %d is lost: its runs end here", number)
            del self._partitions[number]
            self._end(number)
        for number in sorted(partitions):
            if number in self._partitions:
                self._partitions[number].kept()
            elif not self._stopping:
                # Others that leave at the same time hand us theirs: begun now, they would outlive the end.
                self._begin(number)
        self._engine.membership.assignment_changed()
        self.assigned_once.set()

    def _begin(self, number: int) -> None:
        if self._group is None:
            raise RuntimeError("the worker does not serve")
        partition = Partition(number, self._shared)
        serving = _until_cancelled(partition, tuple(self._ending.get(number, ())))
        try:
            self._tasks[number] = self._group.create_task(serving, name=f"partition {number}")
        except RuntimeError:
            # The group ends: something crashed, and the brokers handed us one more before we had left.
            serving.close()
            log.info("partition %d is not begun: the worker ends", number)
        else:
            self._partitions[number] = partition

    def cancel(self, cancel: CancelRun) -> None:
        """Somebody wants a run cancelled: whoever has it ends it."""
        for partition in self._partitions.values():
            partition.cancel(cancel)

    def _end(self, number: int) -> None:
        """All that end are remembered, since one that waits for its turn may be cancelled: lost and found twice, a
        partition overtook its first self, and two runs of one request went on side by side."""
        task = self._tasks.pop(number)
        ending = self._ending.setdefault(number, set())
        ending.add(task)
        task.add_done_callback(ending.discard)
        task.cancel()

    def resume_offset(self, partition: int) -> int | None:
        """Where to go on reading a partition that was ours before the rebalance."""
        held = self._partitions.get(partition)
        return None if held is None or held.claim is None else held.claim.ledger.resume_offset


async def _until_cancelled(partition: Partition, predecessors: Collection[asyncio.Task[None]]) -> None:
    """Serve it. Raises if that ends though nobody here cancelled it.

    aiokafka's `stop()` could raise a CancelledError of its own making. The task group took it for ours: the partition
    stayed paused in a worker that looked alive, and nobody else was given it.
    """
    try:
        await partition.serve(predecessors)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError(f"partition {partition.number} ended by a cancellation that nobody asked for") from error
    raise RuntimeError(f"partition {partition.number} ended by itself")
