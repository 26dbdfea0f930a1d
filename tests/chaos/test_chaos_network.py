"""The network fails between one worker and the brokers, at random: silent, reset, one way, one coordinator only."""

import os
from pathlib import Path

import pytest

from tests.chaos.ordeal import Plan, survive
from tests.chaos.schedule import KINDS, NETWORK_KINDS
from tests.conftest import PrivateKafka

MIXED = (*NETWORK_KINDS, *KINDS)


@pytest.mark.timeout(240)
async def test_a_network_that_fails_for_one_worker_breaks_no_promise(
    private_kafka: PrivateKafka, topics: str, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    plan = Plan(seed=seed, requests=400, faults=4, rate=16, kinds=NETWORK_KINDS, longest_s=5)
    await survive(plan, private_kafka, topics, tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_network_that_fails_among_other_faults_breaks_no_promise(
    private_kafka: PrivateKafka, topics: str, tmp_path: Path
) -> None:
    plan = Plan(
        seed=int(os.environ.get("CHAOS_SEED", "1")),
        requests=int(os.environ.get("CHAOS_REQUESTS", "6000")),
        faults=int(os.environ.get("CHAOS_FAULTS", "30")),
        rate=float(os.environ.get("CHAOS_RATE", "25")),
        kinds=MIXED,
    )
    await survive(plan, private_kafka, topics, tmp_path)
