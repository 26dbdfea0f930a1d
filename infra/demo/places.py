"""Where on Kafka the records of a run lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentstream.consumers.client import SubmittedRun
from agentstream.consumers.readers import DeltaReader, Read, ResultReader, TopicReader
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.headers import last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where everything lies, by run id."""

    results: Mapping[str, Position]
    """The result's record."""
    deltas: Mapping[str, tuple[Position, Position]]
    """The first and the last record of deltas."""

    def result(self, run_id: str) -> str:
        """`partition/offset`."""
        place = self.results.get(run_id)
        return "–" if place is None else f"{place.partition}/{place.offset}"

    def delta(self, run_id: str) -> str:
        """`partition/first–last`."""
        if run_id not in self.deltas:
            return "–"
        first, last = self.deltas[run_id]
        return f"{first.partition}/{first.offset}–{last.offset}"


async def find_places(connection: KafkaConnection, topics: Topics, runs: Sequence[SubmittedRun]) -> Places:
    """Look through the logs from before these runs to their ends."""
    if not runs:
        return Places(results={}, deltas={})
    results_from = _first(runs, {run.run_id: run.results_from for run in runs})
    deltas_from = _first(runs, {run.run_id: run.deltas_from or 0 for run in runs})
    results: dict[str, Position] = {}
    deltas: dict[str, tuple[Position, Position]] = {}
    async with ResultReader(connection, topics, start=results_from, until_end=True) as reader:
        async for found in reader:
            if isinstance(found, Read) and isinstance(found.value, InvokeResult):
                results[found.value.run_id] = found.record.position
    async with DeltaReader(connection, topics, start=deltas_from, until_end=True) as events:
        async for read in events:
            if isinstance(read, Read):
                here = read.record.position
                run_id = last_wins(read.record.headers).get("ce_subject", b"").decode("utf-8", "replace")
                deltas[run_id] = (deltas.get(run_id, (here, here))[0], here)
    return Places(results=results, deltas=deltas)


async def dead_letter_of(connection: KafkaConnection, topics: Topics, request: Position) -> Record:
    """The dead letter of the record at this position; waits until there is one."""
    wanted = str(request.offset).encode()
    start = {request.partition: 0}
    reader = TopicReader[Record](connection, topics.dead_letters, lambda record: record, start=start)
    async with reader:
        async for found in reader:
            if isinstance(found, Read) and last_wins(found.record.headers).get("__dlq.errors.offset") == wanted:
                return found.record
    raise AssertionError("a reader without an end has ended")


def _first(runs: Sequence[SubmittedRun], offsets: Mapping[str, int]) -> dict[int, int]:
    first: dict[int, int] = {}
    for run in runs:
        number = run.position.partition
        first[number] = min(first.get(number, offsets[run.run_id]), offsets[run.run_id])
    return first
