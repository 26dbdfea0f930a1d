"""Seven workers that break one rule each: the checker finds them all, and nothing where the rule is kept."""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentstream.infra.broker import BrokerOptions, find_broker
from tests.chaos.mutants import scenarios
from tests.chaos.mutants.rules import BREAKERS
from tests.chaos.mutants.stage import Stage, stage_of

PROPERTIES = {
    # Kafka's own minimum is 6 s; most scenarios wait until the group forgets a worker.
    "group.min.session.timeout.ms": "1000",
}


@pytest.fixture(scope="module")
def quick_kafka() -> Iterator[str]:
    """Give the bootstrap servers of a broker that allows short sessions."""
    broker = find_broker(BrokerOptions(properties=PROPERTIES), own=True)
    with asyncio.Runner() as runner:
        runner.run(broker.start())
        yield broker.bootstrap_servers
        runner.run(broker.stop())


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule, when it counts, and what the checker says where it is broken."""

    mutant: str
    """Its name on the command line."""
    scenario: Callable[[Stage], Awaitable[None]]
    """When it counts."""
    says: tuple[str, ...]
    """The kinds of sentence that must be among those it says."""


CASES = (
    Case(
        mutant="one-transactional-id-per-process",
        scenario=scenarios.two_owners_commit,
        says=(r"run run has 2 results", r"an owner committed that was replaced"),
    ),
    Case(
        mutant="unchecked-offset-read",
        scenario=scenarios.the_coordinator_is_loading,
        says=(r"run 1 has 2 results", r"the committed offset fell from 3 .* to 0"),
    ),
    Case(
        mutant="futures-not-awaited",
        scenario=scenarios.the_brokers_refuse_a_result,
        says=(r"run large has no result",),
    ),
    Case(
        mutant="fence-without-a-heartbeat",
        scenario=scenarios.a_zombie_is_fenced,
        says=(r"took it from claim \d+ of owner \w+, to whom the group had given it in this very generation",),
    ),
    Case(
        mutant="kept-partitions-not-checked",
        scenario=scenarios.a_partition_was_elsewhere,
        says=(r"of run new began under claim \d+, which was void",),
    ),
    Case(
        mutant="claims-begin-at-one",
        scenario=scenarios.a_worker_is_killed_in_a_run,
        says=(
            r"has these very numbers, so a reader cannot tell which to keep",
            r"commit \d+ of claim 1 came after commit \d+ of claim 1",
        ),
    ),
    Case(
        mutant="unknown-metadata-ignored",
        scenario=scenarios.a_newer_release_was_here,
        says=(r"run done has 2 results", r"claim \d+ wrote over metadata of version 2"),
    ),
)
QUICKEST = {"futures-not-awaited", "claims-begin-at-one"}
"""Few seconds each: part of every test run."""

EACH_CASE = [
    pytest.param(case, id=case.mutant, marks=() if case.mutant in QUICKEST else (pytest.mark.chaos,)) for case in CASES
]


async def found(case: Case, kafka: str, prefix: str, logs: Path, *, mutant: bool) -> list[str]:
    """Play the scenario, and return what the checker says of the log."""
    command = (sys.executable, "-m", "tests.chaos.mutants", case.mutant) if mutant else None
    began = time.monotonic()
    async with stage_of(kafka, prefix, logs, command) as stage:
        await stage.play(case.scenario)
        said = await stage.verdict()
    who = f"mutant {case.mutant}" if mutant else f"the engine in the case of {case.mutant}"
    print(f"\n{who}, {time.monotonic() - began:.1f} s:", *said, sep="\n    ")  # noqa: T201 - the report's table
    return said


@pytest.mark.kafka
@pytest.mark.parametrize("case", EACH_CASE)
async def test_the_engine_keeps_its_promises_where_a_mutant_breaks_them(
    case: Case, quick_kafka: str, topics: str, tmp_path: Path
) -> None:
    assert await found(case, quick_kafka, topics, tmp_path, mutant=False) == []


@pytest.mark.kafka
@pytest.mark.parametrize("case", EACH_CASE)
async def test_the_checker_finds_a_mutant(case: Case, quick_kafka: str, topics: str, tmp_path: Path) -> None:
    said = await found(case, quick_kafka, topics, tmp_path, mutant=True)
    missing = [kind for kind in case.says if not any(re.search(kind, sentence) for sentence in said)]
    assert missing == [], said


def test_every_mutant_has_a_scenario() -> None:
    assert [case.mutant for case in CASES] == list(BREAKERS)
