"""The example that writes results into a database: killed with -9 while it writes, it neither loses nor doubles."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from agentstream import AgentClient
from tests.integration.example_fixtures import EXAMPLES, PARTITIONS, loaded, served
from tests.support.waiting import WAIT_SECONDS

__all__ = ["served"]

BATCH = 40
TOKENS = 7


def until(condition: Callable[[], bool], what: str, *, pause: float = 0.02) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"this never became true: {what}"
        time.sleep(pause)


async def ask(served: dict[str, str], *run_ids: str) -> None:
    """Requests in ten sessions, each of which a run answers at once."""
    usage = {"provider": "none", "model": "none", "input_tokens": 3, "output_tokens": TOKENS}
    harness = {"kind": "scripted", "options": {"text": "done", "delay_ms": 0, "usage": usage}}
    async with AgentClient(
        served["KAFKA_BOOTSTRAP_SERVERS"], topic_prefix=served["AGENTSTREAM_TOPIC_PREFIX"]
    ) as client:
        for number, run_id in enumerate(run_ids):
            await client.submit("hi", run_id=run_id, session_id=f"q{number % 10}", parameters={"harness": harness})


@contextmanager
def writer(database: Path, served: dict[str, str], stderr: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(EXAMPLES / "results_to_sqlite.py"), str(database)]
    with (
        stderr.open("wb") as errors,
        subprocess.Popen(command, env=served, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


class Books:
    """What stands in the database, as somebody else sees it who reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def hold(self) -> None:
        """Look at one state of it until `let_go`: nobody can commit meanwhile.

        Between two commits of somebody else there may be less than a millisecond: it is asked for without a pause.
        """
        self._connection.execute("PRAGMA busy_timeout = 0")
        self._connection.execute("BEGIN")
        until(self._is_free, "nobody commits", pause=0)
        self._connection.execute(f"PRAGMA busy_timeout = {WAIT_SECONDS * 1000:.0f}")

    def _is_free(self) -> bool:
        try:
            self.ours()
        except sqlite3.OperationalError:
            return False
        return True

    def let_go(self) -> None:
        self._connection.execute("ROLLBACK")

    def being_written(self) -> bool:
        """Whether somebody is in the middle of a transaction."""
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            other.execute("ROLLBACK")
            return False

    def until_written(self, run_ids: Sequence[str]) -> None:
        """Wait until the runs of this test are these."""
        until(lambda: self.ours() == set(run_ids), f"{len(run_ids)} results are written")

    def ours(self) -> set[str]:
        """The runs of this test."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'positions'").fetchall():
            return set()
        rows = self._connection.execute("SELECT run_id FROM results WHERE run_id LIKE 'r%'").fetchall()
        return {run_id for (run_id,) in rows}

    def check(self) -> None:
        """Rows, sums and positions tell the same."""
        rows = self._connection.execute("SELECT session_id, count(*) FROM results GROUP BY 1 ORDER BY 1").fetchall()
        sums = self._connection.execute("SELECT session_id, runs FROM spending ORDER BY 1").fetchall()
        assert sums == rows
        newest = self._connection.execute(
            "SELECT kafka_partition, max(kafka_offset) + 1 FROM results GROUP BY 1 ORDER BY 1"
        ).fetchall()
        positions = self._connection.execute("SELECT partition, next FROM positions ORDER BY 1").fetchall()
        assert positions == newest


def test_killed_in_the_middle_of_a_transaction_it_neither_loses_nor_doubles(
    served: dict[str, str], tmp_path: Path
) -> None:
    path, stderr = tmp_path / "results.db", tmp_path / "stderr"
    path.touch()
    run_ids = [f"r{number}" for number in range(3 * BATCH)]
    with closing(Books(path)) as books:
        asyncio.run(ask(served, *run_ids[:BATCH]))
        for killed in (1, 2):
            with writer(path, served, stderr) as process:
                written = run_ids[: killed * BATCH]
                books.until_written(written)
                books.check()
                books.hold()
                asyncio.run(ask(served, *run_ids[killed * BATCH : (killed + 1) * BATCH]))
                until(books.being_written, "a transaction is under way")
                for _ in range(20 if killed == 2 else 0):
                    # Commit by commit, however many it makes: what others see must be right after each of them.
                    books.let_go()
                    books.hold()
                    books.check()
                process.kill()
                process.wait()
                books.check()
                assert killed == 2 or books.ours() == set(written)
                books.let_go()
        with writer(path, served, stderr) as process:
            # Perhaps it finds all written, and is told to end before it has read anything.
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"reading {PARTITIONS} partitions".encode())
            books.until_written(run_ids)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 0
        books.check()
    assert stderr.read_text() == ""
    with closing(sqlite3.connect(path)) as database:
        tokens = database.execute("SELECT sum(output_tokens) FROM spending WHERE session_id LIKE 'q%'").fetchone()
    assert tokens == (len(run_ids) * TOKENS,)


def test_a_position_that_is_not_on_the_log_ends_it_with_one_line_instead_of_a_gap(
    served: dict[str, str], tmp_path: Path
) -> None:
    path, stderr = tmp_path / "results.db", tmp_path / "stderr"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(loaded("results_to_sqlite").SCHEMA)
        topic = served["AGENTSTREAM_TOPIC_PREFIX"] + "assistant-messages"
        database.executemany("INSERT INTO positions VALUES (?, ?, 1000000)", [(topic, n) for n in range(PARTITIONS)])
    with writer(path, served, stderr) as process:
        assert process.wait(WAIT_SECONDS) == 1
    (line,) = stderr.read_text().splitlines()
    assert line.startswith("error: ")
    assert "out of range" in line


def result(run_id: str, offset: int) -> Message:
    body = {"run_id": run_id, "session_id": "s", "status": "completed", "usage": [{"output_tokens": TOKENS}]}
    return Message(topic="results", partition=0, offset=offset, value=json.dumps(body).encode())


def test_rows_sums_and_positions_are_one_transaction_and_a_result_counts_once(tmp_path: Path) -> None:
    example = loaded("results_to_sqlite")
    said: list[str] = []
    with closing(sqlite3.connect(tmp_path / "results.db", isolation_level=None)) as database:
        database.executescript(example.SCHEMA)
        database.set_trace_callback(said.append)
        assert example.store(database, [result("a", 4), result("b", 6), result("a", 7)]) == 2
        assert [line.split()[0] for line in said if not line.startswith("INSERT")] == ["BEGIN", "COMMIT"]
        assert (said[0].split()[0], said[-1]) == ("BEGIN", "COMMIT")
        # A copy that hung comes late with what another has written long ago: nothing changes, nothing goes back.
        assert example.store(database, [result("a", 4)]) == 0
        with pytest.raises(KafkaException):
            example.store(database, [result("c", 8), Message(error=KafkaError(KafkaError._AUTO_OFFSET_RESET))])
        assert database.execute("SELECT run_id FROM results").fetchall() == [("a",), ("b",)]
        assert database.execute("SELECT * FROM spending").fetchall() == [("s", 2, 2 * TOKENS)]
        assert database.execute("SELECT * FROM positions").fetchall() == [("results", 0, 8)]
