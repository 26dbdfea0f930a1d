"""When the index of finished runs is looked at for a caller who chose his run's id."""

import asyncio
from typing import cast

from agentstream.consumers.client.finished import Finished, FinishedRuns
from agentstream.consumers.client.lookback import Lookback
from agentstream.consumers.client.run import Outcome
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.schemas.headers import INVOKE_RESULT, cloud_event
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import FinishedRun
from tests.support.outputs import TRACE
from tests.support.runs import result_of
from tests.virtual_time import in_virtual_time

MINE, FIRST = (Position(topic="requests", partition=0, offset=offset) for offset in (7, 3))
SUBMITTED = SubmittedRun(
    run_id="mine", session_id="s", position=MINE, trace=TRACE, results_from=0, deltas_from=None, body_hash="0" * 16
)


def result_for(request: Position) -> Record:
    headers = tuple(cloud_event(INVOKE_RESULT, "mine", TRACE, request=request))
    where = Position(topic="results", partition=0, offset=0)
    return Record(position=where, timestamp_ms=0, key=b"s", value=result_of(run_id="mine").to_bytes(), headers=headers)


class Index:
    """Notes when it is looked at; the line comes to it when a test says so."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.finished = False

    async def find(self, partition: int, run_id: str, offset: int) -> Finished | None:
        self.looks.append(round(asyncio.get_running_loop().time(), 3))
        line = FinishedRun.bounded(status="completed", session_id="s", offset=3, attempt_id=None, body_hash="0" * 16)
        return Finished(line=line, partition=partition, timestamp_ms=0) if self.finished else None

    async def result_of(self, found: Finished) -> Record | None:
        return result_for(FIRST)


class Waiting:
    """One caller."""

    def __init__(self) -> None:
        self.index = Index()
        self.outcome = Outcome("mine")
        self.lookback = Lookback(self.outcome, cast("FinishedRuns", self.index), "0" * 16)


def test_a_run_that_ends_at_once_costs_no_look() -> None:
    # It cost nearly half of the 3 ms that a request takes.
    async def play() -> None:
        waiting = Waiting()
        async with waiting.lookback.watching(SUBMITTED):
            await asyncio.sleep(0.003)
            waiting.lookback.take(result_for(MINE))
            assert (await waiting.outcome.wait(None)).run_id == "mine"
        assert waiting.index.looks == []

    in_virtual_time(play())


def test_a_result_that_came_before_is_found_within_the_first_look() -> None:
    async def play() -> None:
        waiting = Waiting()
        waiting.index.finished = True
        async with waiting.lookback.watching(SUBMITTED):
            assert (await waiting.outcome.wait(None)).run_id == "mine"
        assert waiting.index.looks == [0.02]

    in_virtual_time(play())


def test_looks_become_rare_while_the_caller_waits() -> None:
    async def play() -> None:
        waiting = Waiting()
        async with waiting.lookback.watching(SUBMITTED):
            await asyncio.sleep(70)
        assert waiting.index.looks == [0.02, 0.12, 0.52, 2.12, 8.52, 34.12, 64.12]

    in_virtual_time(play())


def test_the_result_of_another_request_with_this_id_is_looked_after_at_once() -> None:
    async def play() -> None:
        waiting = Waiting()
        async with waiting.lookback.watching(SUBMITTED):
            await asyncio.sleep(10)
            waiting.lookback.take(result_for(FIRST))
            await asyncio.sleep(0.05)
            waiting.index.finished = True
            assert (await waiting.outcome.wait(None)).run_id == "mine"
        assert waiting.index.looks[-2:] == [10.0, 10.1]

    in_virtual_time(play())


def test_one_that_came_before_the_acknowledgement_is_looked_after_at_once() -> None:
    async def play() -> None:
        waiting = Waiting()
        waiting.index.finished = True
        waiting.lookback.take(result_for(FIRST))
        async with waiting.lookback.watching(SUBMITTED):
            assert (await waiting.outcome.wait(None)).run_id == "mine"
        assert waiting.index.looks == [0.0]

    in_virtual_time(play())
