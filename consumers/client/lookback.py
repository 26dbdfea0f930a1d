"""A caller who chooses a run's id may send a request that was sent before: then the one result is his as well.

    lookback = Lookback(outcome, finished, body_hash)   None: the id is new, and nothing is looked for
    … listen with lookback.take, send …
    async with lookback.watching(submitted): …          feeds the outcome, wherever the result lies

Nothing tells a caller on Kafka that his request was a duplicate: workers pass it over. So the index of finished runs
is looked at: soon, at once where a result of another request with this id comes, and now and then while he waits.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiokafka.errors import KafkaError

from agentstream.consumers.client.errors import ResultExpired, RunIdTaken
from agentstream.consumers.client.finished import Finished, FinishedRuns
from agentstream.consumers.client.run import Outcome
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.consumers.readers.tail import TopicMissing
from agentstream.schemas.headers import REQUEST, header_text, last_wins
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 0.02
"""Whose run takes less looks for nothing: at once after sending, a look was nearly half of a request's 3 ms."""
FIRST_DELAY_SECONDS = 0.1
"""The markers of one transaction appear on each topic by themselves: the line may be seen after the result."""
LAST_DELAY_SECONDS = 30.0
LOOKS_IN_VAIN = 5
"""A result of another request with this run id, and no line for so many looks (8 s): what the index was for is gone,
and the one result there is counts."""


class Lookback:
    """Decides which result is this request's. `take` is plain and never raises."""

    def __init__(
        self,
        outcome: Outcome,
        finished: FinishedRuns,
        body_hash: str | None,
        *,
        deliver: Callable[[Record], None] | None = None,
        deliver_old: Callable[[Record], None] | None = None,
    ) -> None:
        """`deliver` is given the result's record, `deliver_old` one whose deltas were not read either."""
        self._outcome = outcome
        self._finished = finished
        self._body_hash = body_hash
        self._deliver = deliver or outcome.take
        self._deliver_old = deliver_old or self._deliver
        self._submitted: SubmittedRun | None = None
        self._early: list[Record] = []
        self._foreign: Record | None = None
        self._woken = asyncio.Event()

    def take(self, record: Record) -> None:
        """A result with this run id. One that names another request waits until the bodies are known to be the same."""
        if self._body_hash is None:
            self._deliver(record)
        elif self._submitted is None:
            self._early.append(record)
        elif header_text(last_wins(record.headers), REQUEST) in (None, str(self._submitted.position)):
            self._deliver(record)
        else:
            self._foreign = record
            self._woken.set()

    @asynccontextmanager
    async def watching(self, submitted: SubmittedRun) -> AsyncIterator[None]:
        """The request is sent: inside, its result is looked for where it may have come before."""
        if self._body_hash is None:
            yield
            return
        self._submitted = submitted
        early, self._early = self._early, []
        for record in early:
            self.take(record)
        task = asyncio.create_task(self._watch(submitted), name=f"look back for {submitted.run_id}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # the outcome has it

    async def _watch(self, submitted: SubmittedRun) -> None:
        try:
            await self._look(submitted)
        except Exception as error:
            self._outcome.fail(error)
            raise

    async def _look(self, submitted: SubmittedRun) -> None:
        delay, in_vain = FIRST_LOOK_SECONDS, 0
        while True:
            woken = await self._woken_within(delay)
            if self._outcome.known or await self._settled(submitted):
                return
            if self._foreign is not None:
                in_vain += 1
                if in_vain >= LOOKS_IN_VAIN:
                    self._deliver(self._foreign)
                    return
            first = woken or delay < FIRST_DELAY_SECONDS
            delay = FIRST_DELAY_SECONDS if first else min(delay * 4, LAST_DELAY_SECONDS)

    async def _woken_within(self, seconds: float) -> bool:
        """Whether a result of another request came."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    async def _settled(self, submitted: SubmittedRun) -> bool:
        """Whether the index knew; then the outcome is known."""
        where = submitted.position
        try:
            found = await self._finished.find(where.partition, submitted.run_id, where.offset)
            if found is None:
                return False
            await self._settle(submitted, found)
        except TopicMissing as error:
            log.warning("run %s: should it have ended before, its result is not found: %s", submitted.run_id, error)
            if self._foreign is None:
                return False
            self._deliver(self._foreign)
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("the index of finished runs was not read, trying again: %r", error)
            return False
        return True

    async def _settle(self, submitted: SubmittedRun, found: Finished) -> None:
        if found.line.status == "rejected" or found.line.body_hash != self._body_hash:
            self._outcome.fail(RunIdTaken(submitted.run_id))
        elif self._foreign is not None:
            self._deliver(self._foreign)
        elif (record := await self._finished.result_of(found)) is not None:
            self._deliver_old(record)
        else:
            self._outcome.fail(ResultExpired(submitted.run_id))
