"""Several whole workers, random schedules, made-up time: the promises hold whatever happens in whatever order."""

import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.simulation_machine import Simulation, schedules
from tests.support.simulation_mutants import MUTANTS
from tests.support.simulation_weather import Calm, Crashes, Doubts, Everything, Losses, Zombies

MACHINES = (Calm, Zombies, Crashes, Doubts, Losses, Everything)
SCHEDULES = 60
STANDARD = settings(
    max_examples=SCHEDULES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(600)  # a failure is made shorter for up to five minutes
@pytest.mark.parametrize("machine", MACHINES)
def test_workers_keep_their_promises_in_any_schedule(machine: type[Simulation]) -> None:
    run_state_machine_as_test(machine, settings=STANDARD)


@pytest.mark.parametrize("broken", MUTANTS, ids=lambda broken: broken.__name__)
def test_a_broken_engine_is_found_out(broken: Callable[[], Any]) -> None:
    # The same schedules each time, or a mutant that takes 58 of them would be missed once in a while. Not made shorter:
    # it is enough that there is one.
    sought = settings(
        STANDARD, max_examples=600, phases=[Phase.generate], derandomize=True, database=None, print_blob=False
    )
    # An engine this broken may break anything, as long as somebody notices.
    with broken(), pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(MUTANTS[broken], settings=sought)


@pytest.mark.chaos
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", MACHINES)
def test_workers_keep_their_promises_in_very_many_schedules(machine: type[Simulation]) -> None:
    """SCHEDULES says how many for each machine; the default takes some minutes."""
    many = settings(STANDARD, max_examples=int(os.environ.get("SCHEDULES", "2000")))
    before = schedules["played"]
    run_state_machine_as_test(machine, settings=many)
    logging.getLogger(__name__).warning("%s: %d schedules", machine.__name__, schedules["played"] - before)
