"""Waiting for something to become true, never for time to pass."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Answer = TypeVar("Answer")
WAIT_SECONDS = 90.0
"""Nothing is expected to take this long: it only ends a test that would hang."""


def patience() -> asyncio.Timeout:
    """Bounds a wait."""
    return asyncio.timeout(WAIT_SECONDS)


async def awaited(what: Awaitable[Answer]) -> Answer:
    """Make a coroutine of anything that can be awaited: a task takes nothing else."""
    return await what


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail with `what` if it never does."""
    try:
        async with patience():
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"this never became true: {what}") from None
