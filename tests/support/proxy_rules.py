"""What a proxy does to some of the calls that pass through it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from tests.support.frames import Call, Change
from tests.support.waiting import patience


class Hold(Enum):
    """Keep something until the rule is lifted; what follows on the same connection waits behind it."""

    REQUEST = auto()
    """The broker does not see the request."""
    ANSWER = auto()
    """The broker has answered, and the client does not see it."""


class Cut(Enum):
    """Close the client's connection."""

    BEFORE = auto()
    """The broker never sees the request."""
    AFTER = auto()
    """The broker has answered, and the client does not see it."""


@dataclass(frozen=True)
class Rewrite:
    """Let the broker answer, and change its answer."""

    change: Change


Action = Hold | Cut | Rewrite


@dataclass(eq=False)
class Rule:
    """What is to happen to some calls. Made by `KafkaProxy.on`."""

    matches: Callable[[Call], bool]
    action: Action
    times: int | None
    hits: list[Call] = field(default_factory=list)
    _answers: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _lifted: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, call: Call) -> bool:
        """Whether the rule is for this call."""
        if self._lifted.is_set() or (self.times is not None and len(self.hits) >= self.times):
            return False
        if not self.matches(call):
            return False
        async with self._changed:
            self.hits.append(call)
            self._changed.notify_all()
        return True

    async def hit(self, times: int = 1) -> Call:
        """Wait until so many calls ran into the rule; returns the last of them."""
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: len(self.hits) >= times)
        return self.hits[times - 1]

    async def answered(self, times: int = 1) -> None:
        """Wait until the client was sent so many answers to such calls."""
        async with patience(), self._changed:
            await self._changed.wait_for(lambda: self._answers >= times)

    async def note_answer(self) -> None:
        """The client was sent an answer."""
        async with self._changed:
            self._answers += 1
            self._changed.notify_all()

    def lift(self) -> None:
        """End it: what is held goes on, and nothing more matches."""
        self._lifted.set()

    async def lifted(self) -> None:
        """Wait until it is lifted."""
        await self._lifted.wait()
