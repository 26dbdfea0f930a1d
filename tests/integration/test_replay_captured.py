"""From the topics to a recording to a frozen replay: real workers, real Kafka, the real Pi."""

import pytest

from agentstream.consumers.replay.playing import ReplayTerms
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.inside import plan_of, serving
from tests.integration.replay_fixtures import PiStage, with_tools
from tests.support.captures import capture
from tests.support.cluster import Cluster

MANY = 200


def asking(run_id: str, text: str, session: str, history: tuple[Message, ...] = (), **more: object) -> InvokeRequest:
    return InvokeRequest(
        id=run_id,
        session_id=session,
        messages=(*history, Message.of_text("user", text)),
        parameters=AgentParameters.model_validate({"tools": ["bash", "read"], **more}),
    )


async def ran(stage: PiStage, cluster: Cluster, *requests: InvokeRequest) -> None:
    """Have a worker run these."""
    for request in requests:
        await cluster.send(request)
    harnesses = {"pi": stage.pi}
    plan = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=stage.config, harnesses=harnesses)
    async with serving(plan):
        await cluster.tail.all_results(*(request.id or "" for request in requests))


@pytest.mark.timeout(300)
async def test_two_hundred_captured_runs_go_as_recorded(stage: PiStage, cluster: Cluster) -> None:
    first = [asking(f"p{each}", with_tools(each).text, f"s{each}") for each in range(MANY)]
    await ran(
        stage,
        cluster,
        *first,
        asking("refused", "[[fail:400]]", "failed"),
        asking("turns", '[[loop:bash {"command": "echo again"}]]', "turns", limits={"max_turns": 3}),
        asking("unknown", '[[tool:read {"file": 1}]][[say: Well.]]', "odd"),
    )
    await capture(cluster, stage.directory / "before")
    answers = {run.run_id: run.result for run in RecordingReader.open(stage.directory / "before")}
    said = answers["p0"]
    assert said is not None
    history = (*first[0].messages, *said.messages)
    await ran(stage, cluster, asking("later", "[[say: And so on.]]", "s0", history))
    await capture(cluster, stage.directory / "recording")
    runs = list(RecordingReader.open(stage.directory / "recording"))
    assert len(runs) == MANY + 4
    calls = len(stage.model.calls)
    outcome = await stage.replay(runs, ReplayTerms(mode="frozen"))
    assert {run.run_id: run.divergence for run in outcome.runs.values() if run.divergence} == {}
    assert len(stage.model.calls) == calls, "no model was called"
    assert outcome.tally.tools_real == 0
    for run in runs:
        again = outcome[run.run_id].result
        assert run.result is not None
        assert (again.messages, again.usage) == (run.result.messages, run.result.usage), run.run_id
        assert (again.status, again.finish_reason) == (run.result.status, run.result.finish_reason)
    relived = await stage.replay(runs, ReplayTerms(mode="frozen", history="relived"), out="relived")
    assert {run.run_id for run in relived.runs.values() if run.conversation == "relived"} == {"later"}
    assert relived.tally.diverged == 0
