"""Several whole workers on one made-up clock over one made-up Kafka, moved on step by step."""

import asyncio
from random import Random

from agentstream.consumers.quarantine import CRASH_LIMIT
from agentstream.schemas.requests import CancelRun
from tests.support.simulation_group import Group
from tests.support.simulation_kafka import Kafka
from tests.support.simulation_log import Log
from tests.support.simulation_sent import Sent
from tests.support.simulation_time import Clock
from tests.support.simulation_worker import Process

DRAIN_SECONDS = 1_200.0


class Fleet:
    """All of it. Plain: `advance` lets time pass, everything else happens at once."""

    def __init__(self, *, seed: int = 0, partitions: int = 2) -> None:
        self.clock = Clock()
        self.violations: list[str] = []
        self.rng = Random(seed)
        self.logs = [Log(number, self.clock, self.violations) for number in range(partitions)]
        self.kafka = Kafka(self.clock, self.rng, self.logs, Group(self.clock, self.rng, partitions))
        self.workers: list[Process] = []
        self.cancelled: list[CancelRun] = []
        self._names = 0
        self._runs: dict[str, tuple[Log, Sent]] = {}

    @property
    def alive(self) -> list[Process]:
        """Workers that were neither killed nor told to stop."""
        return [each for each in self.workers if not each.dead and not each.stopping]

    def find(self, run_id: str) -> tuple[Log, Sent]:
        """A run's log, and the request that it is of."""
        if run_id not in self._runs:
            number = int(run_id.split("-")[1])
            self._runs[run_id] = (self.logs[number], self.logs[number].first(run_id))
        return self._runs[run_id]

    # what is done to it

    def start(self) -> Process:
        """One worker more."""
        self._names += 1
        process = Process(f"w{self._names}", self)
        for cancel in self.cancelled:
            process.control.tombstones.bury(cancel)
        self.workers.append(process)
        return process

    def kill(self, process: Process, *, cut: bool = False) -> None:
        """As kill -9; `cut`: what it sent last does not arrive either."""
        self.trouble(process)
        process.dead, process.cut = True, cut

    def freeze(self, process: Process) -> None:
        """SIGSTOP."""
        self.trouble(process)
        process.frozen = process.frozen_since_sure = True

    def thaw(self, process: Process) -> None:
        """SIGCONT."""
        process.frozen = False
        process.loop.due = self.clock.now

    def trouble(self, process: Process) -> None:
        """From now on a strike may be in order for what it has, or is about to have."""
        for log in self.logs:
            if process.claim(log.number) is not None or self.kafka.group.owner(log.number) == process.name:
                log.trouble = True

    def cancel(self, run_id: str) -> None:
        """A record on the control topic."""
        cancel = CancelRun(run_id=run_id)
        self.cancelled.append(cancel)
        for process in self.workers:
            if not process.dead:
                process.poke(lambda control=process.control: control.cancel(cancel))  # type: ignore[misc]

    def told(self) -> None:
        """Records were written: who waits for some may look."""
        for process in self.workers:
            if not process.dead:
                process.news()

    # what is seen of it

    def begins(self, process: Process, log: Log, sent: Sent) -> None:
        """An attempt begins. That of a worker whom somebody fenced does no harm but the work."""
        if process.dead:
            return
        if sent.run_id in process.running:
            log.wrong(f"{sent.run_id} runs twice side by side in {process.name}")
        process.running.add(sent.run_id)
        if process.claim(log.number) != log.highest_claim:
            return
        strikes = log.strikes(sent.offset)
        if strikes >= CRASH_LIMIT:
            log.wrong(f"{sent.run_id} runs again after {strikes} crashes")
        if sent.run_id in log.results:
            log.wrong(f"{sent.run_id} runs again in {process.name} though it has its result")
        cancelled = {cancel.run_id for cancel in self.cancelled}
        for earlier in log.sent.values():
            if earlier.offset >= sent.offset:
                break
            # One that was cancelled while it waited ends apart from its lane.
            if earlier.session != sent.session or not earlier.runs or earlier.run_id in cancelled:
                continue
            if earlier.run_id not in log.expired and not log.settled(earlier.offset):
                log.wrong(f"{sent.run_id} begins before {earlier.run_id} of its session has a result")

    # time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        while True:
            self._run_what_is_due()
            due = min([self.kafka.due, *(each.loop.due for each in self.workers if not each.frozen)], default=end)
            if due > end:
                break
            self.clock.now = max(self.clock.now, due)
            self.kafka.happen()
        self.clock.now = max(self.clock.now, end)

    def _run_what_is_due(self) -> None:
        while due := [each for each in self.workers if not each.frozen and each.loop.due <= self.clock.now]:
            for process in due:
                process.loop.run_until_idle()
                if process.dead or process.serving.done():
                    self._bury(process)

    def bury(self) -> None:
        """Killed ones that have not run since."""
        for process in [each for each in self.workers if each.dead]:
            self._bury(process)

    def _bury(self, process: Process) -> None:
        self.workers.remove(process)
        if process.serving.done() and not process.dead:
            if (error := process.serving.exception()) is not None:
                self.violations.append(f"{process.name} broke down: {error!r}")
            if left := asyncio.all_tasks(process.loop):
                self.violations.append(f"{process.name} left tasks behind: {left}")
        process.dead = True
        process.loop.end()

    def close(self) -> None:
        """End every loop."""
        for process in list(self.workers):
            process.dead = True
            self._bury(process)

    def heal(self) -> None:
        """No more faults, and somebody to do the work."""
        for process in self.workers:
            if process.frozen:
                self.thaw(process)
        self.kafka.away_until = self.clock.now
        for log in self.logs:
            log.faults.clear()
            log.faults_of_results.clear()
            log.refuse.clear()

    def drain(self) -> None:
        """Let everything end that will; a worker that is killed is replaced."""
        self.heal()
        end = self.clock.now + DRAIN_SECONDS
        while self.clock.now < end and not self.violations:
            if not self.alive:
                self.start()
            self.advance(2.0)
            if all(log.drained for log in self.logs):
                return
