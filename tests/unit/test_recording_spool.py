"""What a capture has read so far, on disk."""

from pathlib import Path

import pytest

from agentstream.consumers.replay.recording.manifest import RecordingError
from agentstream.consumers.replay.recording.spool import RequestRow, ResultRow, Spool


def row(name: str, *, session: str = "s", partition: int = 0, offset: int = 0, at: int = 0) -> RequestRow:
    return RequestRow(
        run_id=name, session_id=session, partition=partition, offset=offset, timestamp_ms=at, request=name.encode()
    )


def test_runs_are_placed_by_time_and_numbered_within_their_session(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    rows = [
        ("a", "s", 0, 0, 50),
        ("b", "t", 0, 1, 60),
        ("c", "s", 1, 0, 40),
        ("d", "s", 1, 1, 55),
        ("e", "s", 1, 2, 55),
    ]
    for name, session, partition, offset, at in rows:
        assert spool.add_request(row(name, session=session, partition=partition, offset=offset, at=at), at)
    assert not spool.add_request(row("a", offset=9), 70)
    spool.drop([2])
    spool.settle(limit=3)
    assert [(run.request, run.place, run.turn) for run in spool.runs(0)] == [(b"c", 1, 0), (b"a", 2, 1), (b"d", 3, 2)]
    assert [run.request for run in spool.runs(2)] == [b"d"]
    spool.close()


def test_an_event_is_found_by_run_and_attempt_and_stands_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add_request(row("a"), 0)
    assert spool.waiting("a", 1) is None
    assert spool.waiting("a", 0) == (1, 0)
    spool.add_result(1, ResultRow(result=b"{}", attempt_id="x", began_ms=5, ended_ms=9))
    assert spool.waiting("a", 0) is None
    assert (spool.run_of_attempt("a", "x"), spool.run_of_attempt("a", "y"), spool.run_of_attempt("b", "x")) == (
        1,
        None,
        None,
    )
    spool.add_events([(1, 4, 11, b"later"), (1, 0, 10, b"first"), (1, 0, 10, b"first")])
    spool.settle(None)
    assert [run.events for run in spool.runs(0)] == [[b"first", b"later"]]
    assert spool.spans() == {0: (0, 9)}
    spool.close()


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    def killed() -> None:
        with spool.transaction():
            spool.add_request(row("a"), 0)
            spool.note("positions", {"0": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    spool.close()
    again = Spool(tmp_path)
    assert (again.count(), again.noted("positions")) == (0, None)
    again.close()


def test_two_captures_do_not_write_into_one_directory(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(RecordingError, match="another capture writes there now"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "capture.sqlite").write_bytes(b"thesis" * 1_000)
    with pytest.raises(RecordingError, match="is damaged; `--force` begins the capture anew"):
        Spool(tmp_path)
