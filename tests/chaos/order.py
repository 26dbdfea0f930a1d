"""The order of a session's runs, and that a reader of the deltas keeps what the result says."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tests.chaos.log import Json, Log
from tests.chaos.outcomes import Place
from tests.chaos.transcripts import Rank, Told, Transcripts

SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """A run that started, by its result."""

    run_id: str
    offset: int
    """Of its request."""
    started_ms: float
    """When its winning attempt started: its own event's time, else what the result says."""
    done_ms: float
    """The later one of the result's `ended_at` and the time its record was sent."""


def in_session_order(log: Log, told: Transcripts) -> list[str]:
    """Whether the results of a session in a partition, of runs that started, stand in the order of their requests.

    And whether the winning attempt of each started only after the result of the one before it: all clocks of a test are
    one, and a result's record is sent before it is committed, so the check can only be too kind.
    """
    lanes: dict[tuple[int, str], list[_Turn]] = defaultdict(list)
    found = []
    for line in log.results:
        result, place = line.body, line.request
        if place is None or line.partition != place[0] or result["partition"] != place[0]:
            found.append(f"the result of {result['run_id']} is in partition {line.partition}, its request at {place}")
        elif result["attempt"] > 0:  # else it never started, and owes nobody an order
            lanes[place[0], result["session_id"]].append(_turn(result, place, line.timestamp_ms, told))
    for (partition, session), turns in lanes.items():
        for earlier, later in pairwise(turns):
            if later.offset < earlier.offset:
                found.append(
                    f"the result of {later.run_id} stands behind a later one of its session: {session}, partition "
                    f"{partition}: request {later.offset} after {earlier.run_id}'s {earlier.offset}"
                )
        turns.sort(key=lambda turn: turn.offset)
        for earlier, later in pairwise(turns):
            if later.started_ms < earlier.done_ms:
                found.append(
                    f"run {later.run_id} started {earlier.done_ms - later.started_ms:.0f} ms before the result of "
                    f"{earlier.run_id}, which is ahead of it in session {session}, partition {partition}"
                )
    return found


def _turn(result: Json, place: Place, sent_ms: int, told: Transcripts) -> _Turn:
    attempt = told.attempts.get(result["attempt_id"])
    started = None if attempt is None else attempt.started_ms
    if started is None:
        started = _ms(result["started_at"])
    # The record's time is in whole milliseconds, cut; the event's is in microseconds.
    done = max(int(_ms(result["ended_at"])), sent_ms)
    return _Turn(run_id=result["run_id"], offset=place[1], started_ms=started, done_ms=done)


def _ms(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp() * 1000


def rebuilt_as_the_result_says(log: Log, told: Transcripts) -> list[str]:
    """Per attempt, first occurrences of `seq` are 0..n in log order; the result's attempt rebuilt gives its text."""
    found = list(told.flaws)
    for line in log.results:
        result = line.body
        if result.get("attempt_id") is not None:
            best, best_id = told.best.get(result["run_id"], ((0, 0), ""))
            found += winning_attempt(result, told.attempts.get(result["attempt_id"]), best, best_id)
    return found


def winning_attempt(result: Json, told: Told | None, best: Rank, best_id: str) -> list[str]:
    """What is wrong between a result and the attempt it names."""
    name, rank = f"run {result['run_id']}", (result["claim"], result["attempt"])
    found = []
    if best > rank or (best == rank and best_id != result["attempt_id"]):
        found.append(
            f"{name}: a reader would keep attempt {best_id} (claim {best[0]}, attempt {best[1]}), the result is of "
            f"{result['attempt_id']} (claim {rank[0]}, attempt {rank[1]})"
        )
    if told is not None and (told.run_id, told.rank) != (result["run_id"], rank):
        found.append(f"{name}: its attempt is told of as run {told.run_id}, {told.rank}; the result says {rank}")
    events = 0 if told is None else told.events
    if result["deltas"] != "complete":
        if events <= result["last_seq"]:
            found.append(f"{name}: {events} events on the log, though {result['last_seq']} was acknowledged")
        return found
    if events != result["last_seq"] + 1:
        found.append(f"{name}: {events} events on the log, last_seq is {result['last_seq']}")
    spoken, said = "" if told is None else told.text, text_of(result)
    streamed = result["parameters"].get("stream", "full") == "full"
    if result["status"] == "completed" and spoken != said and (spoken or streamed):
        found.append(f"{name}: deltas say {spoken[:SHOWN]!r}, the result {said[:SHOWN]!r}")
    return found


def text_of(result: Json) -> str:
    """All that the assistant said."""
    return "".join(
        part["content"]
        for message in result["messages"]
        if message["role"] == "assistant"
        for part in message["parts"]
        if part["type"] == "text"
    )
