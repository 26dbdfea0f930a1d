"""A changed system prompt, judged end to end: real workers and Kafka, the real Pi, and every step as it is typed."""

import json
from pathlib import Path

import pytest

from tests.integration.replay_fixtures import PiStage, with_tools
from tests.integration.test_replay_captured import asking, ran
from tests.support.cluster import Cluster
from tests.support.commands import Terminal

ADA, EVE = "Your name is Ada.", "Your name is Eve."
RULE = "pass_rate(exact) < baseline - 0.02"


def worse(report: Path) -> dict[str, set[str]]:
    """By evaluator, the runs that a report says are worse."""
    document = json.loads((report / "report.json").read_text())
    return {one["evaluator"]["name"]: set(one["worse"]) for one in document["evaluators"]}


async def a_tenth_is_found(stage: PiStage, cluster: Cluster, number: int) -> None:
    depending = {f"p{n}" for n in range(0, number, 10)}
    given = {"agents_md": ADA, "model": "offline/offline"}
    asked = [(f"p{n}", with_tools(n).text, f"s{n}") for n in range(number)]
    requests = [
        asking(name, "What is your name?" if name in depending else text, session, (), **given)
        for name, text, session in asked
    ]
    await ran(stage, cluster, *requests)
    names = {"KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers, "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix}
    terminal = Terminal(home=stage.directory, environment={**names, "AGENTSTREAM_HARNESSES": "pi"})
    (stage.directory / "EVE.md").write_text(EVE)
    compare = ("--recording", "recording", "--eval", "exact", "--eval", "tools", "--fail-if", RULE)
    await terminal.type("capture", "recording", code=0)
    await terminal.type("replay", "recording", "--out", "same", "--mode", "frozen", code=0)
    await terminal.type("compare", "same", *compare, "--out", "nothing", code=0)
    assert worse(stage.directory / "nothing") == {"exact": set(), "tools": set(), "errors": set()}
    await terminal.type("replay", "recording", "--out", "eve", "--mode", "hybrid", "--agents-md", "EVE.md", code=0)
    await terminal.type("compare", "eve", *compare, "--out", "tenth", code=1)
    assert worse(stage.directory / "tenth") == {"exact": depending, "tools": set(), "errors": set()}


async def test_of_twenty_runs_the_report_names_the_two_that_another_prompt_changed(
    stage: PiStage, cluster: Cluster
) -> None:
    await a_tenth_is_found(stage, cluster, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_of_two_hundred_runs_the_report_names_the_twenty_that_another_prompt_changed(
    stage: PiStage, cluster: Cluster
) -> None:
    await a_tenth_is_found(stage, cluster, 200)
