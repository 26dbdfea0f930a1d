"""Plays scenarios against a whole worker in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine

from agentstream.consumers.metadata import OpenOffset
from tests.support.made_up_kafka import World
from tests.virtual_time import in_virtual_time

Scenario = Callable[[World], Coroutine[object, object, None]]


def nothing(_world: World) -> None:
    """As it comes."""


def with_worker(
    scenario: Scenario,
    *,
    partitions: int = 1,
    slots: int = 8,
    max_held: int = 10_000,
    prepare: Callable[[World], None] = nothing,
) -> World:
    """Play a scenario against a worker that serves, then stop it; everything must be over then."""

    async def play() -> World:
        world = World(partitions=partitions, slots=slots, max_held=max_held)
        prepare(world)
        serving = asyncio.create_task(world.serve())
        await asyncio.sleep(0)
        acting = asyncio.create_task(scenario(world))
        await asyncio.wait({serving, acting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        await acting
        world.stop.set()
        await serving
        assert (world.intake.held, world.intake.held_bytes) == (0, 0)
        assert {log.open_writers for log in world.logs.values()} == {0}
        assert world.deltas._attempts == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return world

    return in_virtual_time(play())


async def first_run_started(world: World) -> None:
    """Assign the first partition, and wait until it is written down that its first request's run has begun."""
    world.source.assign(0)
    await until(lambda: world.log.state.open.get(0, OpenOffset()).started)


async def until(done: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")
