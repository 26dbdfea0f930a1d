import logging

import pytest

from agentstream.infra.telemetry.delivery import Delivery, Losses, Room


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, *, capacity: int = 10) -> Delivery:
    return Delivery("default", "spans", "there", room=Room(count=capacity, size=10_000), calm_s=10.0, clock=clock)


def test_every_span_is_exported_failed_dropped_or_waiting() -> None:
    delivery = made(Clock())
    assert [delivery.admit(100) for _ in range(12)] == [True] * 10 + [False] * 2
    delivery.arrived(4, rejected=1)
    delivery.failed(3, "HTTP 500")
    assert delivery.pending == 3
    assert [delivery.admit(100) for _ in range(8)] == [True] * 7 + [False]
    delivery.abandon()
    assert delivery.losses == Losses(exported=3, failed=4, dropped=13)
    assert delivery.losses.lost == 17
    assert delivery.last_line() == (
        "spans are lost on the way to there: 17 of 20 since the start "
        "(refused or not answered: 4, no room to wait: 3, not sent before the end: 10)"
    )
    # Answers that come when the books are closed, and spans that end then.
    delivery.arrived(2)
    delivery.failed(2, "HTTP 500")
    assert not delivery.admit(100)
    assert delivery.losses == Losses(exported=3, failed=4, dropped=14)


def test_losses_whose_end_was_told_are_not_told_again_at_the_end() -> None:
    clock = Clock()
    delivery = made(clock)
    assert delivery.last_line() is None
    delivery.failed(5, "HTTP 500")
    clock.now += 10
    delivery.arrived(1)
    delivery.abandon()
    assert delivery.last_line() is None


def test_a_collector_that_fails_every_other_export_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    delivery = made(clock)
    for _ in range(50):
        clock.now += 1
        delivery.failed(1, "HTTP 500")
        delivery.arrived(1)
    assert [record.getMessage() for record in caplog.records] == [
        "spans are lost on the way to there: HTTP 500; runs are not affected"
    ]
    clock.now += 10
    delivery.arrived(1)
    delivery.arrived(1)
    assert [record.getMessage() for record in caplog.records[1:]] == ["spans reach there again; 50 were lost meanwhile"]


def test_a_second_disturbance_counts_its_own_losses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    delivery = made(clock)
    for lost in (5, 2):
        delivery.failed(lost, "HTTP 500")
        clock.now += 10
        delivery.arrived(1)
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        "runs are not affected",
        "5 were lost meanwhile",
        "runs are not affected",
        "2 were lost meanwhile",
    ]


def test_the_state_says_why_since_when_and_how_much() -> None:
    clock = Clock()
    delivery = made(clock)
    delivery.admit(100)
    delivery.arrived(1)
    delivery.admit(100)
    clock.now += 3
    delivery.failed(1, "HTTP 401")
    assert delivery.state() == {
        "to": "there",
        "losing": "HTTP 401",
        "pending": 0,
        "exported": 1,
        "failed": 1,
        "dropped": 0,
        "last_success_s_ago": 3.0,
    }


def test_few_large_spans_fill_the_queue_as_many_small_ones_do(caplog: pytest.LogCaptureFixture) -> None:
    delivery = made(Clock(), capacity=100)
    assert [delivery.admit(4_000) for _ in range(3)] == [True, True, False]
    assert delivery.admit(2_000)
    delivery.arrived(1, 4_000)
    delivery.failed(1, "HTTP 500", 4_000)
    assert [delivery.admit(4_000) for _ in range(3)] == [True, True, False]
    assert delivery.losses == Losses(exported=1, failed=1, dropped=2)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "spans are lost on the way to there: more than 10,000 bytes wait; runs are not affected"
