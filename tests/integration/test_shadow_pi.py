"""A shadow with the real Pi beside a worker with the real Pi: the model is asked again, no tool runs."""

import json
from pathlib import Path

import psutil
import pytest

from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.inside import plan_of, serving
from tests.integration.replay_fixtures import PiStage, with_tools
from tests.integration.shadow_fixtures import Terminal, counts, terminal_at
from tests.support.cluster import Cluster
from tests.support.commands import ended
from tests.support.waiting import eventually

FEW = 4


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path) -> Terminal:
    return terminal_at(cluster, tmp_path, AGENTSTREAM_HARNESSES="pi", AGENTSTREAM_TOOLS="bash,read")


async def production(stage: PiStage, cluster: Cluster, *texts: str) -> None:
    """Have a worker with Pi run these, as `p0`, `p1`, …"""
    for number, text in enumerate(texts):
        message = Message.of_text("user", text)
        parameters = AgentParameters(tools=("bash", "read"), agents_md="Be exact.")
        await cluster.send(InvokeRequest(id=f"p{number}", messages=(message,), parameters=parameters))
    plan = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=stage.config, harnesses={"pi": stage.pi})
    async with serving(plan):
        await cluster.tail.all_results(*(f"p{number}" for number in range(len(texts))))


@pytest.mark.parametrize("mode", ["hybrid", "frozen"])
async def test_runs_of_now_go_as_in_production_and_no_tool_runs(
    stage: PiStage, cluster: Cluster, terminal: Terminal, tmp_path: Path, mode: str
) -> None:
    left = tmp_path / "left"
    leaving = f"[[tool:bash {json.dumps({'command': f'touch {left}; echo left'})}]][[say: Done.]]"
    asked = [*(with_tools(number).text for number in range(FEW)), leaving]
    # Events are not read, and with them not the tokens of the single answers, which a frozen play repeats.
    rules = ("--fail-if", "pass_rate(exact) < 1", "--fail-if", "pass_rate(tools) < 1", "--fail-if", "errors > 0")
    async with terminal.following("--mode", mode, "--max-runs", str(FEW + 1), *rules) as process:
        await production(stage, cluster, *asked)
        calls = len(stage.model.calls)
        left.unlink()
        said = await ended(process)
    assert said.code == 0, said.out + said.err
    assert (counts(said)["exact"], counts(said)["tools"]) == (["0", "0", str(FEW + 1)], ["0", "0", str(FEW + 1)])
    played = terminal.shadowed()
    assert not left.exists()
    assert {(run.divergence, run.tools_real) for run in played} == {(None, 0)}
    assert sorted(run.tools_from_recording for run in played) == [1, *[3] * FEW]
    for run in played:
        recorded = await cluster.tail.result(run.run_id)
        assert run.result.text == recorded.text in {"Done.", f"It is {run.run_id[1:]}."}
        assert run.result.session_id == f"{terminal.prefix}{recorded.session_id}"
    assert len(stage.model.calls) == calls, "production's model hears nothing of it"


async def test_a_candidate_without_a_shell_is_an_alarm_and_leaves_nothing_behind(
    stage: PiStage, cluster: Cluster, terminal: Terminal, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    # The offline model calls the tools that it is given: without a shell it says so.
    leaving = f"Run `touch {left}; wc -c {left}`, please."
    rule = "pass_rate(tools) < baseline"
    options = ("--set", 'tools=["read"]', "--fail-if", rule, "--max-runs", "3")
    async with terminal.following(*options) as process:
        await production(stage, cluster, "[[say: One.]]", leaving, "[[say: Two.]]")
        assert left.exists()
        left.unlink()
        said = await ended(process)
    assert said.code == 1, said.out + said.err
    assert f"ALARM: {rule}" in said.err
    assert counts(said)["tools"] == ["0", "1", "3"]
    assert "tools worse: p1" in said.out
    assert not left.exists()


async def test_a_killed_shadow_leaves_no_process_and_production_keeps_its_own(
    stage: PiStage, cluster: Cluster, terminal: Terminal
) -> None:
    async with terminal.following("--concurrency", "1") as process:
        await production(stage, cluster, "Count to 80.")
        await eventually(lambda: terminal.recorded() == 1, "its run is under way")
        its_own = psutil.Process(process.pid).children(recursive=True)
        assert any("sidecar" in " ".join(child.cmdline()) for child in its_own), its_own
        assert not terminal.shadowed()
        process.kill()
        await process.wait()
        await eventually(lambda: not any(child.is_running() for child in its_own), "its Pi is gone with it")
    await production(stage, cluster, "[[say: One.]]")
