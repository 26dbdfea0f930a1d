"""What a capture has read so far, on disk: requests, results and events meet here, and not in memory.

One SQLite file in the recording's directory. What was read and how far reading has come are written in one transaction,
so that a capture killed anywhere goes on where it stood; nothing is read twice into it, nothing is skipped.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.replay.recording.manifest import SPOOL, RecordingError

_CACHE_KIB: Final = 16_000
_ATTEMPTS: Final = 20_000
"""Attempts whose run is remembered: their records stand close together, and a look in the file costs 5 µs."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, session_id TEXT NOT NULL,
    partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, "order" INTEGER NOT NULL,
    request BLOB NOT NULL, result BLOB, attempt_id TEXT, began_ms INTEGER, ended_ms INTEGER,
    place INTEGER UNIQUE, turn INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS runs_by_position ON runs (partition, "offset");
CREATE INDEX IF NOT EXISTS runs_open ON runs (number) WHERE result IS NULL;
CREATE TABLE IF NOT EXISTS events (
    run INTEGER NOT NULL, first_seq INTEGER NOT NULL, "offset" INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (run, first_seq, "offset")) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRow:
    """A request that is meant."""

    run_id: str
    session_id: str
    partition: int
    offset: int
    timestamp_ms: int
    request: bytes
    """The `InvokeRequest` with its ids, as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """A result of a run that is meant."""

    result: bytes
    """The `InvokeResult`, as JSON."""
    attempt_id: str | None
    """The attempt whose events are to be found; None if it has none."""
    began_ms: int
    ended_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """All that was found of a run."""

    run_id: str
    session_id: str
    place: int
    turn: int
    partition: int
    offset: int
    timestamp_ms: int
    request: bytes
    result: bytes | None
    events: list[bytes]
    """Values of the delta topic's records of its attempt."""


class Spool:
    """The file. Closed by `close`; one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open or make it. Raises RecordingError if that is not possible, or another process holds it."""
        path = directory / SPOOL
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        except sqlite3.OperationalError as error:
            raise RecordingError(f"{directory}: cannot be written ({error})") from None
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._db.close()
            held = "locked" in str(error)
            reason = "another capture writes there now" if held else f"cannot be written ({error})"
            raise RecordingError(f"{directory}: {reason}") from None
        except sqlite3.DatabaseError:
            self._db.close()
            raise RecordingError(f"{path}: is damaged; `--force` begins the capture anew") from None
        self.run_of_attempt = lru_cache(_ATTEMPTS)(self._run_of_attempt)

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        # Held until the end: a second capture into the same directory must not mix with this one.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is kept, or nothing of it."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def note(self, name: str, value: JsonValue) -> None:
        """Keep a value under a name."""
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def noted(self, name: str) -> JsonValue:
        """What was kept under a name; None if nothing was."""
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        found: JsonValue = None if row is None else json.loads(row[0])
        return found

    def highest_order(self, partition: int) -> int:
        """The latest time of the requests that were added of a partition, ms."""
        return self._number('SELECT max("order") FROM runs WHERE partition = ?', partition)

    def add_request(self, row: RequestRow, order: int) -> bool:
        """Add a request; whether its run id was new. `order`: its time, never below that of one added before it."""
        cursor = self._db.execute(
            'INSERT OR IGNORE INTO runs (run_id, session_id, partition, "offset", timestamp_ms, "order", request) '
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.run_id, row.session_id, row.partition, row.offset, row.timestamp_ms, order, row.request),
        )
        return cursor.rowcount > 0

    def waiting(self, run_id: str, partition: int) -> tuple[int, int] | None:
        """Number and offset of a run that has no result yet; None if there is no such run."""
        found: tuple[int, int] | None = self._db.execute(
            'SELECT number, "offset" FROM runs WHERE run_id = ? AND partition = ? AND result IS NULL',
            (run_id, partition),
        ).fetchone()
        return found

    def add_result(self, number: int, row: ResultRow) -> None:
        """Give a run its result."""
        self._db.execute(
            "UPDATE runs SET result = ?, attempt_id = ?, began_ms = min(timestamp_ms, ?), ended_ms = ? "
            "WHERE number = ?",
            (row.result, row.attempt_id, row.began_ms, row.ended_ms, number),
        )

    def drop(self, numbers: Iterable[int]) -> None:
        """These runs are not meant."""
        self._db.executemany("DELETE FROM runs WHERE number = ?", [(number,) for number in numbers])

    def unfinished(self) -> Iterator[tuple[int, bytes]]:
        """Number and request of each run without a result. Nothing may be written while it is iterated."""
        yield from self._db.execute("SELECT number, request FROM runs WHERE result IS NULL")

    def count(self, *, open_only: bool = False) -> int:
        """How many runs there are; with `open_only`, without a result."""
        if open_only:
            return self._number("SELECT count(*) FROM runs WHERE result IS NULL")
        return self._number("SELECT count(*) FROM runs")

    def earliest(self) -> Mapping[int, int]:
        """The lowest timestamp of a request, by partition; partitions without one are absent."""
        return dict(self._db.execute("SELECT partition, min(timestamp_ms) FROM runs GROUP BY partition"))

    def spans(self) -> Mapping[int, tuple[int, int]]:
        """From when to when attempts that have events lived, ms, by partition."""
        rows = self._db.execute(
            "SELECT partition, min(began_ms), max(ended_ms) FROM runs WHERE attempt_id IS NOT NULL GROUP BY partition"
        )
        return {partition: (began, ended) for partition, began, ended in rows}

    def settle(self, limit: int | None) -> None:
        """Give each run its place and its turn; of more than `limit` the oldest stay."""
        self._db.execute(
            "UPDATE runs SET place = ranked.place FROM (SELECT number, "
            'row_number() OVER (ORDER BY "order", partition, "offset") AS place FROM runs) AS ranked '
            "WHERE ranked.number = runs.number"
        )
        if limit is not None:
            self._db.execute("DELETE FROM runs WHERE place > ?", (limit,))
        self._db.execute(
            "UPDATE runs SET turn = ranked.turn FROM (SELECT number, "
            "row_number() OVER (PARTITION BY session_id ORDER BY place) - 1 AS turn FROM runs) AS ranked "
            "WHERE ranked.number = runs.number"
        )

    def _run_of_attempt(self, run_id: str, attempt_id: str) -> int | None:
        query = "SELECT number FROM runs WHERE run_id = ? AND attempt_id = ?"
        row = self._db.execute(query, (run_id, attempt_id)).fetchone()
        return None if row is None else int(row[0])

    def add_events(self, rows: Iterable[tuple[int, int, int, bytes]]) -> None:
        """Add records: the run's number, the first `seq`, the offset, the value."""
        self._db.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", rows)

    def runs(self, after: int) -> Iterator[RunRow]:
        """All runs in their order, those behind a place. Notes may be written meanwhile."""
        cursor = self._db.execute(
            'SELECT number, run_id, session_id, place, turn, partition, "offset", timestamp_ms, request, result '
            "FROM runs WHERE place > ? ORDER BY place",
            (after,),
        )
        for number, run_id, session_id, place, turn, partition, offset, timestamp_ms, request, result in cursor:
            values = self._db.execute("SELECT value FROM events WHERE run = ? ORDER BY first_seq", (number,))
            yield RunRow(
                run_id=run_id,
                session_id=session_id,
                place=place,
                turn=turn,
                partition=partition,
                offset=offset,
                timestamp_ms=timestamp_ms,
                request=request,
                result=result,
                events=[value for (value,) in values],
            )

    def _number(self, query: str, *values: int) -> int:
        (found,) = self._db.execute(query, values).fetchone()
        return int(found or 0)
