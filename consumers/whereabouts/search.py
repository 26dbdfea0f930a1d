"""The search: first among the requests that are not finished, then among the runs that are."""

from collections.abc import Callable
from dataclasses import replace

from agentstream.consumers.whereabouts.answer import Whereabouts
from agentstream.consumers.whereabouts.ended import find_ended
from agentstream.consumers.whereabouts.look import Look
from agentstream.consumers.whereabouts.unfinished import committed_states, find_request, whereabouts_of
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import decode_result
from agentstream.schemas.records import Position
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics


class Search:
    """Looks for runs on one set of topics. Raises TopicMissing, CoordinatorError, KafkaError, OSError, TimeoutError."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Topics,
        group_id: str,
        *,
        last: int,
        progress: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`last`: so many records of each partition of a topic are looked at, at most."""
        self._connection = connection
        self._topics = topics
        self._group_id = group_id
        self._last = last
        self._progress = progress

    async def find(self, run_id: str) -> Whereabouts:
        """Where the run is now."""
        look = self._look()
        found = await self._find(look, run_id)
        return replace(found, notes=tuple(look.notes))

    async def _find(self, look: Look, run_id: str) -> Whereabouts:
        states = await committed_states(look, self._group_id)
        request = await find_request(look, run_id, states)
        if request is not None and request.unfinished:
            return await whereabouts_of(look, run_id, request)
        found = await find_ended(look, run_id, None if request is None else request.position.partition)
        return found or Whereabouts(run_id=run_id, state="unknown")

    async def result_at(self, position: Position) -> InvokeResult:
        """The result that lies there. Raises LookupError if it cannot be read."""
        async with self._look().scan(position.topic) as scan:
            record, _ = await scan.first({position.partition: position.offset}, lambda each: each.position == position)
        result = None if record is None else decode_result(record)
        if not isinstance(result, InvokeResult):
            raise LookupError(f"the result at {position} cannot be read")
        return result

    def _look(self) -> Look:
        return Look(connection=self._connection, topics=self._topics, last=self._last, progress=self._progress)
