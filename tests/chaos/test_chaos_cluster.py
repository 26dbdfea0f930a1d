"""Three brokers: one of them is killed, leaders and coordinators move, and workers and networks fail meanwhile."""

import os
from pathlib import Path

import pytest

from tests.chaos.ordeal import Plan, survive
from tests.chaos.schedule import CLUSTER_KINDS, KINDS, NETWORK_KINDS
from tests.conftest import PrivateKafka

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]


def _plan(kinds: tuple[str, ...], *, requests: int, faults: int, rate: float) -> Plan:
    return Plan(
        seed=int(os.environ.get("CHAOS_SEED", "1")),
        requests=int(os.environ.get("CHAOS_REQUESTS", requests)),
        faults=int(os.environ.get("CHAOS_FAULTS", faults)),
        rate=float(os.environ.get("CHAOS_RATE", rate)),
        kinds=kinds,
        brokers=3,
    )


async def test_brokers_that_fail_and_leaders_that_move_break_no_promise(
    private_kafka: PrivateKafka, topics: str, tmp_path: Path
) -> None:
    plan = _plan(CLUSTER_KINDS, requests=1500, faults=12, rate=12)
    await survive(plan, private_kafka, topics, tmp_path)


async def test_everything_that_can_fail_at_random_breaks_no_promise(
    private_kafka: PrivateKafka, topics: str, tmp_path: Path
) -> None:
    plan = _plan((*CLUSTER_KINDS, *NETWORK_KINDS, *KINDS), requests=6000, faults=40, rate=20)
    await survive(plan, private_kafka, topics, tmp_path)
