import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from agentstream.infra.log_repeats import CalmHandler

GONE = "Unable connect to node with id 1"


@pytest.fixture
def out() -> StringIO:
    return StringIO()


@pytest.fixture
def handler(out: StringIO) -> Iterator[CalmHandler]:
    opened = CalmHandler(out, ["aiokafka"])
    yield opened
    opened.close()


def record(
    at: float, text: str = GONE, name: str = "aiokafka.client", error: Exception | None = None
) -> logging.LogRecord:
    told = None if error is None else (type(error), error, None)
    made = logging.LogRecord(name, logging.ERROR, __file__, 1, text, None, told)
    made.created = 1_000_000 + at
    return made


def test_a_repeated_line_of_a_library_is_said_at_once_and_then_every_ten_seconds_with_its_number(
    handler: CalmHandler, out: StringIO
) -> None:
    # 640 lines a second, for as long as the broker was away.
    for number in range(16_001):
        handler.handle(record(number / 640))
    assert out.getvalue().splitlines() == [
        GONE,
        f"{GONE} … 6,399 more like it in 10 s",
        f"{GONE} … 6,400 more like it in 10 s",
    ]


def test_what_is_owed_comes_with_the_next_line_of_any_kind(handler: CalmHandler, out: StringIO) -> None:
    for number in range(5):
        handler.handle(record(number))
    handler.handle(record(30, "it is back", "agentstream.worker"))
    assert out.getvalue().splitlines() == [GONE, f"{GONE} … 4 more like it in 4 s", "it is back"]


def test_what_is_owed_at_the_end_is_said(handler: CalmHandler, out: StringIO) -> None:
    handler.handle(record(0))
    handler.handle(record(1))
    handler.close()
    assert out.getvalue().splitlines() == [GONE, f"{GONE} … 1 more like it in 1 s"]


def test_no_other_line_is_left_out(handler: CalmHandler, out: StringIO) -> None:
    for text in ("node 1", "node 2", "node 3"):
        handler.handle(record(0, text))
    for _ in range(3):
        handler.handle(record(0, "run ended", "agentstream.runs"))
    # asyncio says the same sentence of every forgotten task; what happened is in the exception.
    for error in (ValueError("a"), ValueError("b")):
        handler.handle(record(0, "Task exception was never retrieved", error=error))
    lines = out.getvalue().splitlines()
    assert lines[:6] == ["node 1", "node 2", "node 3", "run ended", "run ended", "run ended"]
    assert lines.count("Task exception was never retrieved") == 2


def test_a_line_that_comes_again_after_a_while_is_said_again(handler: CalmHandler, out: StringIO) -> None:
    handler.handle(record(0))
    handler.handle(record(11))
    assert out.getvalue().splitlines() == [GONE, GONE]
