"""What may befall simulated workers besides their work, and the machines that are made of it."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.simulation_machine import LOGS, MOST_WORKERS, PAUSES, SESSIONS, WORKERS, Simulation
from tests.support.simulation_sent import Fault, Kind

FAULTS = st.lists(st.sampled_from(Fault), min_size=1, max_size=3)
MOSTLY = st.sampled_from([True, True, False])


class Calm(Simulation):
    """Workers come and go by themselves, and partitions move: no run may ever count as crashed."""

    @precondition(lambda self: len(self.fleet.workers) < MOST_WORKERS)
    @rule(pause=PAUSES)
    def a_worker_joins(self, pause: float) -> None:
        self.fleet.start()
        self.fleet.advance(pause)

    @rule(worker=WORKERS, pause=PAUSES)
    def a_worker_is_told_to_stop(self, worker: int, pause: float) -> None:
        if (process := self.pick(worker)) is not None:
            process.stop()
        self.fleet.advance(pause)

    @rule(number=LOGS, worker=WORKERS, times=st.integers(1, 2), pause=PAUSES)
    def a_partition_moves(self, number: int, worker: int, times: int, pause: float) -> None:
        for turn in range(times):
            if (process := self.pick(worker + turn)) is not None:
                self.fleet.kafka.group.preferred[number] = process.name
            self.fleet.kafka.group.rebalance()
            self.fleet.advance(pause)


class Zombies(Calm):
    """Workers stand still as well, and wake when others have what was theirs."""

    @rule(worker=WORKERS, pause=PAUSES)
    def a_worker_stands_still(self, worker: int, pause: float) -> None:
        if (process := self.pick(worker)) is not None:
            self.fleet.freeze(process)
        self.fleet.advance(pause)

    @rule(worker=WORKERS, seconds=st.sampled_from([2.0, 6.0, 12.0, 25.0]), pause=PAUSES)
    def a_worker_stands_still_for(self, worker: int, seconds: float, pause: float) -> None:
        if (process := self.pick(worker)) is not None:
            self.fleet.freeze(process)
            self.fleet.advance(seconds)
            self.fleet.thaw(process)
        self.fleet.advance(pause)

    @rule(worker=WORKERS, pause=PAUSES)
    def a_worker_goes_on(self, worker: int, pause: float) -> None:
        if (process := self.pick(worker, frozen=True)) is not None:
            self.fleet.thaw(process)
        self.fleet.advance(pause)


class Crashes(Calm):
    """Workers are killed as well, by somebody or by what they run."""

    @rule(number=LOGS, session=SESSIONS, seconds=st.sampled_from([0.0, 0.05, 1.0]), pause=PAUSES)
    def send_a_killer(self, number: int, session: str, seconds: float, pause: float) -> None:
        self.log(number).send(Kind.KILLS, session, seconds=seconds)
        self.fleet.told()
        self.fleet.advance(pause)

    @rule(worker=WORKERS, cut=st.booleans(), pause=PAUSES)
    def a_worker_is_killed(self, worker: int, cut: bool, pause: float) -> None:
        if (process := self.pick(worker)) is not None:
            self.fleet.kill(process, cut=cut)
            self.fleet.bury()
        self.fleet.advance(pause)


class Doubts(Calm):
    """Transactions fail as well, and nobody says whether they did."""

    @rule(
        number=LOGS,
        faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=3),
        results=st.sampled_from([True, True, False]),
        pause=PAUSES,
    )
    def transactions_will_fail(self, number: int, faults: list[Fault], results: bool, pause: float) -> None:
        log = self.log(number)
        (log.faults_of_results if results else log.faults).extend(faults)
        log.trouble = True
        self.fleet.advance(pause)

    @rule(number=LOGS, session=SESSIONS, times=st.integers(1, 4), others=st.integers(0, 3), pause=PAUSES)
    def send_what_will_be_refused(self, number: int, session: str, times: int, others: int, pause: float) -> None:
        log = self.log(number)
        sent = log.send(Kind.FINISHES, session)
        log.refuse[sent.run_id] += times
        log.trouble = True
        for other in range(others):
            log.send(Kind.FINISHES, f"of many {other}")
        self.fleet.told()
        self.fleet.advance(pause)

    @rule(number=LOGS, pause=PAUSES)
    def the_brokers_end_a_transaction(self, number: int, pause: float) -> None:
        """Its time is up, which its owner cannot tell from another owner."""
        self.log(number).epoch += 1
        self.log(number).trouble = True
        self.fleet.advance(pause)

    @rule(seconds=st.sampled_from([0.1, 3.0, 20.0]), pause=PAUSES)
    def the_coordinator_loads(self, seconds: float, pause: float) -> None:
        self.fleet.kafka.away_until = self.fleet.clock.now + seconds
        for log in self.fleet.logs:
            log.trouble = True
        self.fleet.advance(pause)


class Losses(Calm):
    """Logs and offsets go as well."""

    @rule(number=LOGS, share=st.sampled_from([0.3, 0.7, 1.0]), pause=PAUSES)
    def retention_reaches_a_part_of_the_log(self, number: int, share: float, pause: float) -> None:
        log = self.log(number)
        log.trim(log.begin + int((len(log.records) - log.begin) * share))
        self.fleet.advance(pause)

    @rule(number=LOGS, pause=PAUSES)
    def the_groups_offsets_are_lost(self, number: int, pause: float) -> None:
        self.log(number).forget_offsets()
        self.fleet.advance(pause)


class Everything(Zombies, Crashes, Doubts, Losses):
    """All of it at once."""
