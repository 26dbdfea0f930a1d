"""Run ids of one partition, in flight and finished; and what a line of the index says."""

import json

import pytest

from agentstream.consumers.index import KnownRuns, _remember


def test_a_run_is_known_from_its_admission_on_and_stays_known_when_it_is_finished() -> None:
    known = KnownRuns()
    assert known.seen("a") is None
    known.begin("a", "hash")
    assert known.seen("a") == "hash"
    known.finish("a")
    assert known.seen("a") == "hash"


def test_what_the_log_told_is_known() -> None:
    assert KnownRuns([("a", "1"), ("b", "2")]).seen("b") == "2"


def test_beyond_the_window_the_oldest_is_forgotten() -> None:
    known = KnownRuns([("a", "1"), ("b", "2")], window=2)
    known.begin("c", "3")
    known.finish("c")
    assert [known.seen(run_id) for run_id in "abc"] == [None, "2", "3"]


def test_a_run_in_flight_is_never_forgotten() -> None:
    known = KnownRuns(window=1)
    known.begin("long", "1")
    for run_id in "abc":
        known.begin(run_id, "2")
        known.finish(run_id)
    assert known.seen("long") == "1"
    assert [known.seen(run_id) for run_id in "abc"] == [None, None, "2"]


def test_what_never_began_does_not_finish() -> None:
    known = KnownRuns([("b", "1")], window=1)
    known.finish("a")
    assert (known.seen("a"), known.seen("b")) == (None, "1")


def line(**fields: object) -> bytes:
    return json.dumps({"status": "completed", "offset": 5, "body_hash": "0" * 16, **fields}).encode()


def test_a_line_tells_which_request_is_finished_and_under_which_id() -> None:
    hashes: dict[str, str] = {"run": "old", "other": "1"}
    assert _remember(b"run", line(), hashes) == (5, "0" * 16)
    assert list(hashes.items()) == [("other", "1"), ("run", "0" * 16)], "the newest comes last, and goes last"


def test_a_rejected_record_is_finished_but_its_id_is_nobody_s() -> None:
    hashes: dict[str, str] = {}
    assert _remember(b"position id", line(status="rejected"), hashes) == (5, "0" * 16)
    assert hashes == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"5",
        b"[" * 100_000,
        b'{"offset":Infinity,"body_hash":"","status":""}',
        line(offset=None),
        line(offset="x"),
    ],
)
def test_a_line_that_is_not_ours_says_nothing(value: bytes | None) -> None:
    hashes: dict[str, str] = {}
    assert _remember(b"run", value, hashes) is None
    assert hashes == {}


def test_a_key_that_is_no_text_says_nothing() -> None:
    assert _remember(b"\xff", line(), {}) is None
