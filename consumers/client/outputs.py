"""What comes of runs, as one client reads it: their results, their events, and the index of finished runs.

However many callers wait, one consumer reads the results and one the deltas.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

from agentstream.consumers.client.finished import FinishedRuns
from agentstream.consumers.client.follower import Follower, Listener, run_of_events, run_of_result
from agentstream.consumers.client.lookback import Lookback
from agentstream.consumers.client.outage import Hears
from agentstream.consumers.client.run import Feed, Outcome
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics


class Outputs:
    """The output topics of one client. `close` ends it; everything else opens what it needs.

    Positions are offsets by partition: below everything that is written after they were given.
    """

    def __init__(
        self, connection: KafkaConnection, topics: Topics, *, max_buffered_bytes: int, hears: Hears = nullcontext
    ) -> None:
        """`max_buffered_bytes` bounds what a feed keeps for a caller who iterates slowly. `hears`: see `Outage`."""
        self._hears = hears
        self._connection = connection
        self._topics = topics
        self._max_buffered_bytes = max_buffered_bytes
        self.finished = FinishedRuns(connection, topics, hears=hears)
        self.results = self._follower(topics.assistant_messages, run_of_result, read_committed=True)
        self.deltas = self._follower(topics.stream_deltas, run_of_events, read_committed=False)

    async def close(self) -> None:
        """Read no more. Raises what a follower failed with, if that was a bug of ours."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.finished.close)
            stack.push_async_callback(self.deltas.close)
            stack.push_async_callback(self.results.close)

    def outcome(self, run_id: str, body_hash: str | None) -> tuple[Outcome, Lookback]:
        """A result that is waited for, and what decides which one that is."""
        outcome = Outcome(run_id)
        return outcome, Lookback(outcome, self.finished, body_hash)

    def feed(self, run_id: str, body_hash: str | None) -> tuple[Feed, Lookback]:
        """The same for a run whose events are followed as well."""
        feed = Feed(run_id, max_buffered_bytes=self._max_buffered_bytes)
        lookback = Lookback(
            feed.outcome, self.finished, body_hash, deliver=feed.take_result, deliver_old=feed.take_old_result
        )
        return feed, lookback

    @asynccontextmanager
    async def listening_for_result(self, outcome: Outcome, lookback: Lookback) -> AsyncIterator[Mapping[int, int]]:
        """Inside it results of the run reach its outcome. Gives the positions of the results topic."""
        listener = Listener(lookback.take, outcome.fail)
        async with self.results.listening(outcome.run_id, listener) as results:
            yield results

    @asynccontextmanager
    async def listening_for_run(
        self, feed: Feed, lookback: Lookback
    ) -> AsyncIterator[tuple[Mapping[int, int], Mapping[int, int]]]:
        """Inside it events and results of the run reach its feed. Gives the positions of results and of deltas."""
        listener = Listener(feed.take_events, feed.outcome.fail)
        async with (
            self.listening_for_result(feed.outcome, lookback) as results,
            self.deltas.listening(feed.run_id, listener) as deltas,
        ):
            yield results, deltas

    def _follower(self, topic: str, run_of: Callable[[Record], str | None], *, read_committed: bool) -> Follower:
        tail = Tail(lambda: tail_consumer(self._connection, read_committed=read_committed), topic)
        return Follower(tail, also_needed=(self._topics.invoke_requests,), run_id_of=run_of, hears=self._hears)
