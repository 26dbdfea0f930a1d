"""Schedules for simulated workers: what may happen, in any order, and what must hold after each step and at the end."""

import logging
from contextlib import ExitStack
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentstream.consumers import metadata
from tests.support.simulation import Fleet
from tests.support.simulation_log import Log
from tests.support.simulation_sent import Kind, Sent
from tests.support.simulation_worker import Process

MOST_WORKERS = 3
LOGS = st.integers(0, 1)
WHICH = st.integers(0, 30)
WORKERS = st.integers(0, MOST_WORKERS - 1)
SESSIONS = st.sampled_from(["a", "b", "c"])
SECONDS = st.sampled_from([0.0, 0.0, 0.2, 2.0, 5.0])
SELDOM = st.sampled_from([False] * 5 + [True])
PAUSES = st.sampled_from([0.0, 0.002, 0.02, 0.15, 0.5, 1.5, 4.0, 12.0])
NEW = st.sampled_from([Kind.FINISHES, Kind.FINISHES, Kind.FAILS, Kind.FAILS_TWICE, Kind.UNREADABLE, Kind.INVALID])
CRAMPED = 150
"""So few characters that a handful of open offsets does not fit."""
schedules = {"played": 0}


class Simulation(RuleBasedStateMachine):
    """Two partitions, up to three workers, and callers who send, repeat, contradict and cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.closing = ExitStack()
        self.never: set[str] = set()
        self._logging = logging.root.manager.disable
        # Each schedule says hundreds of lines, and writing them would be half its time.
        logging.disable(logging.CRITICAL)

    @initialize(seed=st.integers(0, 1_000), workers=st.integers(1, MOST_WORKERS), cramped=SELDOM)
    def begin(self, seed: int, workers: int, cramped: bool) -> None:
        self.fleet = Fleet(seed=seed)
        if cramped:
            self.closing.enter_context(mock.patch.object(metadata, "MAX_METADATA", CRAMPED))
            for log in self.fleet.logs:
                log.forgetful = True
        for _ in range(workers):
            self.fleet.start()
        self.fleet.advance(1.0)

    def log(self, number: int) -> Log:
        return self.fleet.logs[number]

    def pick(self, number: int, *, frozen: bool = False) -> Process | None:
        able = [each for each in self.fleet.alive if each.frozen is frozen]
        return able[number % len(able)] if able else None

    # the callers

    @rule(number=LOGS, kind=NEW, session=SESSIONS, seconds=SECONDS, count=st.integers(1, 5), pause=PAUSES)
    def send(self, number: int, kind: Kind, session: str, seconds: float, count: int, pause: float) -> None:
        for _ in range(count):
            self.log(number).send(kind, session, seconds=seconds)
        self.fleet.told()
        self.fleet.advance(pause)

    @rule(number=LOGS, seconds=SECONDS, count=st.integers(2, 6), hole=st.booleans(), pause=PAUSES)
    def send_to_many_sessions(self, number: int, seconds: float, count: int, hole: bool, pause: float) -> None:
        log = self.log(number)
        if hole:
            log.records.append(None)
        for session in range(count):
            log.send(Kind.FINISHES, f"of many {session}", seconds=seconds)
        self.fleet.told()
        self.fleet.advance(pause)

    @precondition(lambda self: any(log.sent for log in self.fleet.logs))
    @rule(which=WHICH, kind=st.sampled_from([Kind.REPEATS, Kind.CONFLICTS]), pause=PAUSES)
    def send_again(self, which: int, kind: Kind, pause: float) -> None:
        log, sent = self.some(which)
        if sent.runs:
            log.send(kind, sent.session, of=sent)
            self.fleet.told()
        self.fleet.advance(pause)

    @precondition(lambda self: any(log.sent for log in self.fleet.logs))
    @rule(which=WHICH, pause=PAUSES)
    def cancel(self, which: int, pause: float) -> None:
        self.fleet.cancel(self.some(which)[1].run_id)
        self.fleet.advance(pause)

    @rule(number=LOGS, session=SESSIONS, seconds=SECONDS, pause=PAUSES)
    def cancel_before_it_is_sent(self, number: int, session: str, seconds: float, pause: float) -> None:
        run_id = f"run-{number}-{len(self.log(number).records)}"
        self.fleet.cancel(run_id)
        assert self.log(number).send(Kind.FINISHES, session, seconds=seconds).run_id == run_id
        self.never.add(run_id)
        self.fleet.told()
        self.fleet.advance(pause)

    def some(self, which: int) -> tuple[Log, Sent]:
        known = [(log, sent) for log in self.fleet.logs for sent in log.sent.values()]
        return known[-1 - which % len(known)]

    @rule(pause=PAUSES)
    def time_passes(self, pause: float) -> None:
        self.fleet.advance(pause)

    # what must hold

    @invariant()
    def no_promise_is_broken(self) -> None:
        assert not self.fleet.violations, "\n".join(self.fleet.violations)

    def teardown(self) -> None:
        schedules["played"] += 1
        try:
            if not self.fleet.violations:
                self.fleet.drain()
                self.everything_has_its_one_outcome()
        finally:
            self.fleet.close()
            self.closing.close()
            logging.disable(self._logging)

    def everything_has_its_one_outcome(self) -> None:
        assert not self.fleet.violations, "\n".join(self.fleet.violations)
        cancelled = {cancel.run_id for cancel in self.fleet.cancelled}
        for log in self.fleet.logs:
            waiting = [(sent.kind.name, sent.run_id) for sent in log.unsettled]
            assert log.drained, f"it never ended: {waiting}, {log.state}"
            for sent in log.sent.values():
                if sent.run_id in log.expired:
                    continue
                if sent.kind in (Kind.UNREADABLE, Kind.INVALID, Kind.CONFLICTS):
                    assert log.dead_letters[sent.offset] == 1, f"offset {sent.offset} has no dead letter"
                elif sent.kind is not Kind.REPEATS:
                    found = how_it_ended(log, sent)
                    assert found in expected(log, sent, cancelled, self.never), f"{sent} ended as {found}"


def how_it_ended(log: Log, sent: Sent) -> str:
    """In one word."""
    result = log.results[sent.run_id]
    return result.status if result.error is None else result.error.code.value


def expected(log: Log, sent: Sent, cancelled: set[str], never: set[str]) -> set[str]:
    """How it may have ended."""
    if sent.run_id in never:
        return {"cancelled"}
    ends = {
        Kind.FINISHES: {"completed"},
        Kind.FAILS_TWICE: {"completed"},
        Kind.FAILS: {"provider_auth"},
        Kind.KILLS: {"crash_limit"},
    }[sent.kind]
    may_be: set[str] = set(ends)
    if sent.run_id in cancelled:
        may_be.add("cancelled")
    if sent.run_id in log.refused:
        may_be.add("output_too_large")
    if log.results[sent.run_id].crashes >= 3:
        may_be = {"crash_limit"} | (may_be & {"cancelled"})
    return may_be
