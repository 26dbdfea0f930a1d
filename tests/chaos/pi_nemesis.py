"""Faults of a harness's surroundings by a seed: sidecars, the model endpoint, the disk, and workers in between."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Sequence

import psutil

from tests.chaos.nemesis import Done, Fault
from tests.chaos.pi_fleet import PiFleet
from tests.chaos.pi_load import PiLoad
from tests.chaos.pi_model import MoodyModel

KINDS = (
    "sidecar_kill",
    "disk_bytes",
    "model_down",
    "sidecar_stop",
    "model_cut",
    "kill",
    "model_429",
    "disk_files",
    "sidecar_block",
    "term",
    "model_slow",
    "model_500",
    "model_stall",
    "model_hang",
)
"""The first ones are in the short seed."""
WEIGHTS = (4, 2, 2, 2, 2, 2, 1, 2, 1, 2, 1, 1, 1, 1)
PING_S = 8.0
"""A sidecar that is silent for longer is killed by its worker: 3 s between two pings and 5 s for an answer."""


def pi_schedule(seed: int, *, faults: int) -> list[Fault]:
    """The faults of a seed: each kind once while there is room, and then by weight, in an order of the seed's."""
    rng = random.Random(seed)
    drawn = [*KINDS[:faults], *rng.choices(KINDS, WEIGHTS, k=max(0, faults - len(KINDS)))]
    rng.shuffle(drawn)
    return [Fault(after_s=rng.uniform(0.3, 1.5), kind=kind, draw=rng.random()) for kind in drawn]


class PiNemesis:
    """Does a schedule's faults, one after the other, each healed before the next."""

    def __init__(self, fleet: PiFleet, model: MoodyModel, load: PiLoad) -> None:
        self._fleet = fleet
        self._model = model
        self._load = load
        self.done: list[Done] = []

    async def work(self, faults: Sequence[Fault]) -> None:
        """All of them; afterwards the model answers, the disk has room and every worker runs."""
        for fault in faults:
            await asyncio.sleep(fault.after_s)
            began_at = time.monotonic()
            name, _, what = fault.kind.partition("_")
            match name:
                case "model":
                    async with self._model.being(what):
                        await asyncio.sleep(1.5 + 3 * fault.draw)
                case "disk":
                    async with self._fleet.disk.full(what, self._sidecar_pids):
                        await asyncio.sleep(1.5 + 3 * fault.draw)
                case "sidecar" if what == "block":
                    await self._block_sidecar(fault.draw)
                case "sidecar":
                    await self._do_to_sidecar(what, fault.draw)
                case _:
                    await self._do_to_worker(name, fault.draw)
            self.done.append(Done(fault=fault, began_at=began_at, healed_at=time.monotonic()))

    def _sidecar_pids(self) -> list[int]:
        # A worker whose sidecar dies before it was ready ends with a clear line: that is no fault to survive.
        ready = [number for number in self._fleet.serving if self._fleet.has_started(number)]
        return [sidecar.pid for number in ready for sidecar in self._fleet.sidecars(number)]

    async def _do_to_worker(self, kind: str, draw: float) -> None:
        serving = self._fleet.serving
        victim = serving[int(draw * len(serving))]
        if kind == "kill":
            await self._fleet.kill_worker(victim)
            await self._fleet.start_worker()
            return
        await self._fleet.start_worker()
        await self._fleet.stop_worker(victim)
        await self._fleet.workers[victim].wait()

    async def _do_to_sidecar(self, kind: str, draw: float) -> None:
        while not (pids := self._sidecar_pids()):
            await asyncio.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim = psutil.Process(pids[int(draw * len(pids))])
            match kind:
                case "kill":
                    victim.kill()
                case "stop":
                    # From well within the worker's patience to well beyond it.
                    victim.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(PING_S * (0.4 + 1.2 * draw))
                    victim.send_signal(signal.SIGCONT)

    async def _block_sidecar(self, draw: float) -> None:
        """A request whose tool keeps the event loop busy; over when a worker has lost its patience with it."""
        before = len(self._fleet.log_lines("answered nothing"))
        request = self._load.request(
            f"bomb-{len(self.done)}", "bomb", f"session-bomb-{len(self.done)}", random.Random(draw)
        )
        await self._load.send([request])
        while len(self._fleet.log_lines("answered nothing")) == before:
            await asyncio.sleep(0.1)
