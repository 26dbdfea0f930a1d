"""Faults at random under load, and a checker that trusts only the log. `make chaos` runs the long ones.

CHAOS_SEED=7 CHAOS_REQUESTS=100000 CHAOS_FAULTS=60 CHAOS_RATE=80 make chaos     the same seed is the same schedule
CHAOS_SCENARIO=cluster make chaos     other scenarios: network, cluster, pi; all: one after the other
"""

import os
from pathlib import Path

import pytest

from tests.chaos.ordeal import Plan, drained, survive
from tests.chaos.schedule import schedule
from tests.conftest import PrivateKafka

__all__ = ["Plan", "drained", "survive"]


def test_a_seed_is_always_the_same_schedule() -> None:
    assert schedule(7, faults=20) == schedule(7, faults=20)
    assert schedule(7, faults=20) != schedule(8, faults=20)
    assert {"kill", "stop", "term"} <= {fault.kind for fault in schedule(3, faults=3)}


@pytest.mark.timeout(240)
async def test_a_short_seed_keeps_every_promise(private_kafka: PrivateKafka, topics: str, tmp_path: Path) -> None:
    plan = Plan(seed=1, requests=600, faults=5, rate=25, longest_s=10)
    await survive(plan, private_kafka, topics, tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_long_seed_keeps_every_promise(private_kafka: PrivateKafka, topics: str, tmp_path: Path) -> None:
    plan = Plan(
        seed=int(os.environ.get("CHAOS_SEED", "1")),
        requests=int(os.environ.get("CHAOS_REQUESTS", "20000")),
        faults=int(os.environ.get("CHAOS_FAULTS", "50")),
        rate=float(os.environ.get("CHAOS_RATE", "40")),
    )
    await survive(plan, private_kafka, topics, tmp_path)
