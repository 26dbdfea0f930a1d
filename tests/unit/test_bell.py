"""What wakes a run's loop, and how few timers that takes."""

import asyncio
from asyncio import TimerHandle
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

from agentstream.consumers.harness.port import Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.pump import Bell
from agentstream.schemas.events import MessageEnded, PartDelta
from agentstream.schemas.messages import Message
from tests.unit.playing import Faulty, Scene, perform
from tests.virtual_time import VirtualLoop, in_virtual_time

Ts = TypeVarTuple("Ts")


class Counting(VirtualLoop):
    """Counts the timers that are set."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[TimerHandle] = []

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        self.timers.append(super().call_at(when, callback, *args, context=context))
        return self.timers[-1]


def test_a_bell_that_was_rung_while_nobody_waited_wakes_the_next_who_does() -> None:
    async def scene() -> float:
        bell = Bell()
        bell.ring()
        await bell.wait(5.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(scene()) == 0.0


def test_a_bell_remembers_one_ring_and_not_two() -> None:
    async def scene() -> float:
        bell = Bell()
        bell.ring()
        bell.ring()
        await bell.wait(5.0)
        await bell.wait(5.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(scene()) == 5.0


def test_a_bell_rings_when_it_is_time_even_if_that_was_put_forward() -> None:
    async def scene() -> list[float]:
        bell, loop, times = Bell(), asyncio.get_running_loop(), list[float]()
        for until in (9.0, 2.0):
            if times == []:
                loop.call_soon(bell.ring)
            await bell.wait(until)
            times.append(loop.time())
        return times

    assert in_virtual_time(scene()) == [0.0, 2.0]


def test_a_bell_that_rang_too_early_still_rings_in_time() -> None:
    async def scene() -> list[float]:
        bell, loop, times = Bell(), asyncio.get_running_loop(), list[float]()
        loop.call_soon(bell.ring)
        await bell.wait(2.0)
        while loop.time() < 9.0:
            await bell.wait(9.0)
            times.append(loop.time())
        return times

    assert in_virtual_time(scene()) == [2.0, 9.0]


def test_events_that_come_one_by_one_do_not_each_set_a_timer_and_none_is_left_behind() -> None:
    said = MessageEnded(turn=1, message_id="m", message=Message.of_text("assistant", "said"))

    async def trickles(_: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        for _word in range(200):
            yield PartDelta(turn=1, message_id="m", part_index=0, part_type="text", delta="w ")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        yield said
        yield Finished(finish_reason="stop")

    with asyncio.Runner(loop_factory=Counting) as runner:
        played = runner.run(perform(Scene(harness=Faulty(trickles))))
        loop = runner.get_loop()
        assert isinstance(loop, Counting)
    assert played.result.status == "completed"
    assert 0 < len(loop.timers) < 10
    assert all(timer.cancelled() or timer.when() <= played.ended for timer in loop.timers)
