"""Tombstones: which runs are to be cancelled, in bounded memory."""

import pytest

from agentstream.consumers.control import Control, Tombstones, why
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Position, Record
from agentstream.schemas.requests import CancelRun


def test_a_run_is_found_by_its_id_with_whom_and_why() -> None:
    tombstones = Tombstones()
    tombstones.bury(CancelRun(run_id="a", reason="too dear", requested_by="ada"))
    found = tombstones.find("a")
    assert found is not None
    assert why(found) == "cancelled by ada: too dear"
    assert tombstones.find("b") is None


def test_the_first_request_for_a_run_stands() -> None:
    tombstones = Tombstones()
    tombstones.bury(CancelRun(run_id="a", reason="first"))
    tombstones.bury(CancelRun(run_id="a", reason="second"))
    found = tombstones.find("a")
    assert found is not None
    assert found.reason == "first"
    assert len(tombstones) == 1


def test_a_flood_is_bounded_oldest_out_and_counted() -> None:
    tombstones = Tombstones(most=100, reasons=10)
    for number in range(1_000):
        tombstones.bury(CancelRun(run_id=f"run-{number}", reason="flood"))
    assert len(tombstones) == 100
    assert tombstones.forgotten == 900
    assert tombstones.find("run-899") is None
    assert tombstones.find("run-900") == CancelRun(run_id="run-900"), "only the newest keep their reasons"
    assert tombstones.find("run-999") == CancelRun(run_id="run-999", reason="flood")


def test_without_a_name_or_a_reason_the_result_just_says_cancelled() -> None:
    assert why(CancelRun(run_id="a")) == "cancelled"


def record(offset: int, value: bytes) -> Record:
    where = Position(topic="control", partition=0, offset=offset)
    return Record(position=where, timestamp_ms=0, key=b"", value=value, headers=())


def test_a_flood_of_bad_records_is_counted_and_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    connection = KafkaConnection(bootstrap_servers="nobody:1")
    tail = Tail(lambda: tail_consumer(connection, read_committed=True), "control")
    control = Control(tail, tombstones=Tombstones(most=100, reasons=10))
    for number in range(5_000):
        control._take(record(2 * number, b"{"))
        control._take(record(2 * number + 1, CancelRun(run_id=f"unknown-{number}").to_bytes()))
    assert control.counts() == {"tombstones": 100, "forgotten": 4_900, "ignored": 5_000}
    assert len(caplog.records) == 15
    assert "5000 so far" in caplog.text
