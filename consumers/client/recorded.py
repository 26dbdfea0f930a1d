"""A session as the log holds it: its requests and results, read from its one partition.

await read_history(connection, topics, finished, Wanted(session_id="s1")) -> RecordedHistory
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.partitioner import DefaultPartitioner

from agentstream.consumers.client.checking import NO_CHARACTER
from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    HistoryLost,
    RequestRefused,
    SessionBusy,
    SessionUnknown,
    TopicsMissing,
    in_words,
)
from agentstream.consumers.client.finished import FinishedRuns
from agentstream.consumers.client.history import Messages, RecordedTurn, carries_history, rebuilt
from agentstream.consumers.log_scan import LogScan
from agentstream.consumers.readers.tail import TopicMissing
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.codec import Rejection, decode_request, decode_result, session_of_key
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import REQUEST, header_text, last_wins
from agentstream.schemas.parsing import is_text
from agentstream.schemas.records import Record
from agentstream.schemas.topics import Topics

NO_BOUND = 2**62
FIRST_WINDOW = 5_000
WIDER = 8
"""So many of the newest requests are looked at first, then so many times as many: 0.2 s, where all of a partition's
30 days may take minutes."""
SLACK_MS = 120_000
"""A request has its time from its caller's clock, a result from its worker's. Where they differ by more, all results
are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedHistory:
    """The conversation of a session as the log holds it."""

    session_id: str
    """The session."""
    messages: Messages
    """The conversation: what the next turn is to be asked with, before it."""
    turns: int
    """Requests that it was put together from; the newest ones may hold what came before."""
    lost: int = 0
    """Turns that are known to have been and are left out: they, or their results, are no longer on the log."""
    since: datetime | None = None
    """Set if the log of this partition begins only then, and a turn before that would leave no trace."""


@dataclass(slots=True)
class _Turn:
    run_id: str
    offset: int
    timestamp_ms: int
    asked: Messages
    said: Messages | None = None
    has_result: bool = False


@dataclass(slots=True)
class _Session:
    """What was found of one session. A request that carries the history makes all before it needless."""

    session_id: str
    partition: int = -1
    begins: int = 0
    first_ms: int | None = None
    turns: dict[int, _Turn] = field(default_factory=dict)
    run_ids: set[str] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    @property
    def carried(self) -> bool:
        """Whether its first turn here holds all that was before."""
        return bool(self.turns) and carries_history(next(iter(self.turns.values())).asked)

    @property
    def complete(self) -> bool:
        """Whether every turn has its result."""
        return all(turn.has_result for turn in self.turns.values())

    def take_request(self, record: Record) -> bool:
        if self.first_ms is None:
            self.first_ms = record.timestamp_ms
        if not _may_be_of(self.session_id, record):
            return False
        request = decode_request(record)
        if isinstance(request, Rejection) or request.session_id != self.session_id or request.id is None:
            return False
        if request.id in self.run_ids:
            return False  # sent again: the first one ran
        self.run_ids.add(request.id)
        if carries_history(request.messages):
            self.turns.clear()
        offset = record.position.offset
        self.turns[offset] = _Turn(request.id, offset, record.timestamp_ms, request.messages)
        return False

    def take_result(self, record: Record) -> bool:
        asked_at = header_text(last_wins(record.headers), REQUEST)
        offset = int(asked_at.rpartition("/")[2]) if asked_at and asked_at.rpartition("/")[2].isdecimal() else None
        if offset is None or (offset >= self.begins and offset not in self.turns):
            return False
        if not _may_be_of(self.session_id, record):
            return False
        result = decode_result(record)
        if isinstance(result, Problem) or result.session_id != self.session_id:
            return False
        if (turn := self.turns.get(offset)) is None:
            self.gone.add(offset)
        else:
            turn.said, turn.has_result = result.messages, True
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be read."""

    session_id: str
    """The session."""
    lost_is_fine: bool = False
    """Whether to go on with what is left where turns are gone."""
    progress: Callable[[str], None] = lambda _line: None
    """Is given a line every two seconds."""


async def read_history(
    connection: KafkaConnection, topics: Topics, finished: FinishedRuns, wanted: Wanted
) -> RecordedHistory:
    """Read it. Raises RequestRefused for an id that is no text, SessionUnknown, SessionBusy, HistoryLost, TopicsMissing
    or BrokerUnavailable."""
    if not is_text(wanted.session_id):
        raise RequestRefused(f"session_id: {NO_CHARACTER}")

    def scan_of(topic: str) -> LogScan:
        return LogScan(connection, topic, last=NO_BOUND, progress=wanted.progress, committed=True)

    try:
        async with scan_of(topics.invoke_requests) as requests, scan_of(topics.assistant_messages) as results:
            session = await _Reading(requests, results, finished, wanted.session_id).read()
    except (TopicMissing, TopicAuthorizationFailedError) as error:
        raise TopicsMissing(f"a session's history cannot be read: {in_words(error)}") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"the brokers do not answer: {in_words(error)}") from error
    if not session.turns and not session.gone:
        raise SessionUnknown(wanted.session_id, session.partition)
    found = _history(session)
    if found.lost and not wanted.lost_is_fine:
        raise HistoryLost(wanted.session_id, found.lost)
    return found


class _Reading:
    """Looks at the newest records first: of a session whose callers send the history the last request is enough."""

    def __init__(self, requests: LogScan, results: LogScan, finished: FinishedRuns, session_id: str) -> None:
        self._requests = requests
        self._results = results
        self._finished = finished
        self._session_id = session_id

    async def read(self) -> _Session:
        partitions = list(await self._requests.partitions())
        # Whoever sends with another partitioner has the session elsewhere, and no order in it.
        number = DefaultPartitioner()(self._session_id.encode(), partitions, partitions)
        begins = (await self._requests.beginnings())[number]
        end = (await self._requests.ends())[number]
        window = FIRST_WINDOW
        while True:
            session = _Session(self._session_id, partition=number, begins=begins)
            start = max(begins, end - window)
            await self._requests.run({number: start}, session.take_request)
            if await self._settled(session, everything=start == begins):
                return session
            window *= WIDER

    async def _settled(self, session: _Session, *, everything: bool) -> bool:
        """Whether nothing before the requests that were looked at can matter. Raises SessionBusy."""
        carried = session.carried
        if not (carried or everything):
            return False
        if carried:
            first = next(iter(session.turns.values()))
            since = await self._results.since(first.timestamp_ms - SLACK_MS, session.partition)
            await self._results.run(since, session.take_result)
        if everything and not (carried and session.complete):
            await self._results.run({session.partition: 0}, session.take_result)
        last = next(reversed(session.turns.values()), None)
        if last is None or last.has_result:
            return everything or session.complete
        if await self._finished.find(session.partition, last.run_id, last.offset) is None:
            raise SessionBusy(session.session_id, last.run_id)
        return everything


def _history(session: _Session) -> RecordedHistory:
    turns = list(session.turns.values())
    complete = session.carried
    found = rebuilt(RecordedTurn(asked=turn.asked, said=turn.said) for turn in turns)
    cut = session.begins > 0 and not complete and session.first_ms is not None
    return RecordedHistory(
        session_id=session.session_id,
        messages=found.messages,
        turns=len(turns),
        lost=found.lost + (0 if complete else len(session.gone)),
        since=datetime.fromtimestamp((session.first_ms or 0) / 1000, tz=UTC) if cut else None,
    )


def _may_be_of(session_id: str, record: Record) -> bool:
    """Whether a closer look is worth it: to decode a request takes longer than to read it."""
    if session_of_key(record.key) == session_id:
        return True
    # Under another key its name stands in the body; an odd one perhaps escaped, so only a plain one is looked for.
    return not session_id.isalnum() or session_id.encode() in (record.value or b"")
