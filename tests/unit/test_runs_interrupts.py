"""A run ended from outside, and one whose publisher is slow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.port import Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.interrupt import Interrupt
from agentstream.consumers.pump import QUEUE_EVENTS
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.runs import Runs
from agentstream.schemas.events import MessageEnded, PartDelta, RunRetrying, TurnStarted
from agentstream.schemas.messages import Message
from agentstream.schemas.results import InvokeResult
from tests.unit.playing import Faulty, Played, Scene, play
from tests.virtual_time import in_virtual_time, now

Events = AsyncIterator[HarnessEvent | Terminal]
SAID = MessageEnded(turn=1, message_id="m", message=Message.of_text("assistant", "said"))
DONE = Finished(finish_reason="stop")


def on_first_delta(action: str) -> Callable[[Played, Interrupt], None]:
    def act(played: Played, interrupt: Interrupt) -> None:
        if played.types[-1] == "part.delta":
            getattr(interrupt, action)()

    return act


def test_a_draining_worker_ends_a_run_without_a_result() -> None:
    played = play(Scene(options={"hang": "mid_text", "text": "a b"}), on_record=on_first_delta("drain"))
    assert played.results == []
    last = played.events[-1]
    assert isinstance(last, RunRetrying)
    assert (last.reason, last.delay_ms, last.error) == ("draining", 0, None)
    assert played.ended == 0.0


def test_a_cancelled_run_ends_as_cancelled() -> None:
    played = play(Scene(options={"hang": "mid_text", "text": "a b"}), on_record=on_first_delta("cancel"))
    assert (played.result.status, played.code, played.result.finish_reason) == ("cancelled", "cancelled", "cancelled")
    assert played.types[-1] == "run.ended"


@pytest.mark.parametrize(("action", "results"), [("cancel", 1), ("drain", 0)])
def test_a_run_that_waits_for_its_next_attempt_can_be_ended(action: str, results: int) -> None:
    def act(played: Played, interrupt: Interrupt) -> None:
        if played.types[-1] == "run.retrying":
            getattr(interrupt, action)()

    played = play(Scene(options={"fail_attempts": 9}), on_record=act)
    assert played.ended == 0.0
    assert len(played.results) == results
    assert played.types.count("run.started") == 1
    assert played.types[-1] == ("run.ended" if results else "run.retrying")


@pytest.mark.parametrize(("action", "results"), [("cancel", 1), ("drain", 0)])
def test_a_run_can_be_ended_before_it_starts(action: str, results: int) -> None:
    async def scene() -> list[object]:
        async with ScriptedHarness() as harness:
            runs, interrupt = Runs({"scripted": harness}, redactor=Redactor(), now=now), Interrupt()
            getattr(interrupt, action)()
            return [outcome async for outcome in runs.execute(Scene().admitted(), interrupt)]

    outcomes = in_virtual_time(scene())
    assert len(outcomes) == results
    assert all(isinstance(outcome, InvokeResult) and outcome.status == "cancelled" for outcome in outcomes)


def test_the_first_of_two_interrupts_wins() -> None:
    interrupt = Interrupt()
    interrupt.cancel("enough")
    interrupt.drain()
    assert "enough" in repr(interrupt.requested)


def test_a_lost_partition_cancels_the_harness_and_yields_nothing_more() -> None:
    closed: list[float] = []

    async def slow(_: HarnessRequest) -> Events:
        try:
            yield TurnStarted(turn=1)
            await asyncio.sleep(3_600)
        finally:
            closed.append(asyncio.get_running_loop().time())

    async def scene() -> list[object]:
        runs, seen = Runs({"scripted": Faulty(slow)}, redactor=Redactor(), now=now), list[object]()

        async def consume() -> None:
            async with aclosing(runs.execute(Scene().admitted())) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome)

        task = asyncio.create_task(consume())
        await asyncio.sleep(1)
        count = len(seen)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert runs.abandoned == 0
        return seen[count:]

    assert in_virtual_time(scene()) == []
    assert closed == [1.0]


def test_a_harness_that_waits_for_room_has_cleaned_up_when_its_cancelled_run_is_over() -> None:
    cleaned: list[float] = []

    async def fast(_: HarnessRequest) -> Events:
        try:
            while True:
                yield TurnStarted(turn=1)
        finally:
            await asyncio.sleep(0.5)
            cleaned.append(asyncio.get_running_loop().time())

    async def scene() -> float:
        runs = Runs({"scripted": Faulty(fast)}, redactor=Redactor(), now=now)
        outcomes = runs.execute(Scene().admitted())
        await anext(outcomes)
        await asyncio.sleep(1)
        await outcomes.aclose()
        return asyncio.get_running_loop().time()

    assert in_virtual_time(scene()) == 1.5
    assert cleaned == [1.5]


def test_a_slow_publisher_holds_the_harness_back_and_loses_nothing() -> None:
    ahead: list[int] = []
    yielded = 0

    async def fast(_: HarnessRequest) -> Events:
        nonlocal yielded
        yield TurnStarted(turn=1)
        for index in range(1_000):
            yielded += 1
            yield PartDelta(turn=1, message_id="m", part_index=0, part_type="text", delta=f"{index} " + "x" * 4_100)
        yield SAID
        yield DONE

    async def scene() -> list[str]:
        limits = replace(DEFAULT_LIMITS, max_output_bytes=10_000_000)
        runs, deltas = Runs({"scripted": Faulty(fast)}, redactor=Redactor(), now=now), list[str]()
        async for outcome in runs.execute(Scene(limits=limits).admitted()):
            await asyncio.sleep(1)
            if isinstance(outcome, InvokeResult):
                assert outcome.status == "completed"
                continue
            deltas += [event.delta.split()[0] for event in outcome.events if isinstance(event, PartDelta)]
            ahead.append(yielded - len(deltas))
        return deltas

    assert in_virtual_time(scene()) == [str(index) for index in range(1_000)]
    # The queue, and as much again that the loop took from it and has not yielded yet.
    assert max(ahead) <= 2 * QUEUE_EVENTS + 2
