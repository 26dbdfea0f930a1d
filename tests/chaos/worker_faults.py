"""What befalls workers as processes: they are killed, stopped and woken, told to end, and come and go."""

import asyncio
import signal

from tests.chaos.fleet import SESSION_TIMEOUT_MS, Fleet

MOST_WORKERS = 5
LEAST_WORKERS = 2


class WorkerFaults:
    """Faults of a fleet's workers. `ended` are those that ended because we said so."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.ended: set[asyncio.subprocess.Process] = set()

    @property
    def alive(self) -> list[asyncio.subprocess.Process]:
        """The workers that run."""
        return [worker for worker in self._fleet.workers if worker.returncode is None]

    def victim(self, draw: float) -> asyncio.subprocess.Process:
        """One that runs."""
        return self.alive[int(draw * len(self.alive)) % len(self.alive)]

    async def kill(self, draw: float) -> None:
        """Kill -9, and another worker in its place."""
        await self.kill_one(self.victim(draw))

    async def kill_one(self, worker: asyncio.subprocess.Process) -> None:
        """The same to this worker."""
        self._doomed(worker).kill()
        await worker.wait()
        await self._fleet.start_worker()

    async def stop(self, draw: float) -> None:
        """Past its session, so that it wakes as a zombie."""
        victim = self.victim(draw)
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_MS / 1000 + 1 + 4 * draw)
        victim.send_signal(signal.SIGCONT)

    async def term(self, draw: float) -> None:
        """A clean stop, and another worker in its place."""
        victim = self._doomed(self.victim(draw))
        victim.terminate()
        await self._fleet.start_worker()
        await victim.wait()

    async def join(self, _draw: float) -> None:
        """One more worker."""
        if len(self.alive) < MOST_WORKERS:
            await self._fleet.start_worker()

    async def leave(self, draw: float) -> None:
        """One worker less, cleanly."""
        if len(self.alive) > LEAST_WORKERS:
            victim = self._doomed(self.victim(draw))
            victim.terminate()
            await victim.wait()

    async def storm(self, draw: float) -> None:
        """Members come and go faster than the group settles."""
        for _ in range(3):
            newcomer = self._doomed(await self._fleet.start_worker())
            await asyncio.sleep(0.5 + draw)
            newcomer.terminate()
            await newcomer.wait()

    def _doomed(self, worker: asyncio.subprocess.Process) -> asyncio.subprocess.Process:
        self.ended.add(worker)
        return worker
