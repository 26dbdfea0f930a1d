"""Faults by a seed: the schedule is made before anything runs, printed, and the same for the same seed."""

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agentstream.infra.broker import LocalBroker
from tests.chaos.fleet import SESSION_TIMEOUT_MS, Fleet

KINDS = ("kill", "stop", "term", "join", "leave", "storm", "broker")
WEIGHTS = (5, 4, 3, 2, 2, 1, 1)
MOST_WORKERS = 5
LEAST_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a schedule."""

    after_s: float
    """Seconds after the fault before it has healed."""
    kind: str
    """One of KINDS."""
    draw: float
    """From 0 to 1: which worker, how long."""

    def __str__(self) -> str:
        return f"+{self.after_s:.1f}s {self.kind}({self.draw:.2f})"


@dataclass(frozen=True, kw_only=True)
class Done:
    """One fault as it happened."""

    fault: Fault
    """What the schedule said."""
    began_at: float
    """When it was about to be done, by `time.monotonic()`."""
    healed_at: float
    """When nothing of it was left: the process runs on, or another one was started in its place."""


def schedule(seed: int, *, faults: int, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """The faults of a seed. The first three kinds each come at least once where there is room."""
    rng = random.Random(seed)
    weights = [WEIGHTS[KINDS.index(kind)] for kind in kinds]
    drawn = [*kinds[:3], *rng.choices(kinds, weights, k=max(0, faults - 3))][:faults]
    rng.shuffle(drawn)
    return [Fault(after_s=rng.uniform(0.5, 4.0), kind=kind, draw=rng.random()) for kind in drawn]


class Nemesis:
    """Does a schedule's faults to a fleet and its broker, one after the other, each healed before the next."""

    def __init__(self, fleet: Fleet, broker: LocalBroker | None) -> None:
        self._fleet = fleet
        self._broker = broker
        self.done: list[Done] = []

    async def work(self, faults: Sequence[Fault]) -> None:
        """All of them; afterwards every worker runs and the broker is up."""
        for fault in faults:
            await asyncio.sleep(fault.after_s)
            began_at = time.monotonic()
            await getattr(self, f"fault_{fault.kind}")(fault.draw)
            self.done.append(Done(fault=fault, began_at=began_at, healed_at=time.monotonic()))

    @property
    def _alive(self) -> list[asyncio.subprocess.Process]:
        return [worker for worker in self._fleet.workers if worker.returncode is None]

    def _victim(self, draw: float) -> asyncio.subprocess.Process:
        return self._alive[int(draw * len(self._alive)) % len(self._alive)]

    async def fault_kill(self, draw: float) -> None:
        """Kill -9, and another worker in its place."""
        victim = self._victim(draw)
        victim.kill()
        await victim.wait()
        await self._fleet.start_worker()

    async def fault_stop(self, draw: float) -> None:
        """Past its session, so that it wakes as a zombie."""
        victim = self._victim(draw)
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_MS / 1000 + 1 + 4 * draw)
        victim.send_signal(signal.SIGCONT)

    async def fault_term(self, draw: float) -> None:
        """A clean stop, and another worker in its place."""
        victim = self._victim(draw)
        victim.terminate()
        await self._fleet.start_worker()
        await victim.wait()

    async def fault_join(self, _draw: float) -> None:
        """One more worker."""
        if len(self._alive) < MOST_WORKERS:
            await self._fleet.start_worker()

    async def fault_leave(self, draw: float) -> None:
        """One worker less, cleanly."""
        if len(self._alive) > LEAST_WORKERS:
            victim = self._victim(draw)
            victim.terminate()
            await victim.wait()

    async def fault_storm(self, draw: float) -> None:
        """Members come and go faster than the group settles."""
        for _ in range(3):
            newcomer = await self._fleet.start_worker()
            await asyncio.sleep(0.5 + draw)
            newcomer.terminate()
            await newcomer.wait()

    async def fault_broker(self, draw: float) -> None:
        """Kill -9 of the broker, and its restart on the same data."""
        if self._broker is not None:
            await self._broker.kill()
            await asyncio.sleep(2 * draw)
            await self._broker.restart()
