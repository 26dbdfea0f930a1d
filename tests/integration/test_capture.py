"""From the topics to a recording, with what real workers leave there."""

import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from pydantic import JsonValue

from agentstream.consumers.redaction import REDACTED, Redactor
from agentstream.consumers.replay.recording.files import RecordingError, RecordingReader
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.events import PartDelta, RunEnded, RunStarted, ToolEnded
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.inside import plan_of, serving
from tests.support.captures import capture, captured
from tests.support.cluster import Cluster, cluster_of
from tests.support.gated import GatedHarness
from tests.support.outputs import answer, outputs_of
from tests.support.runs import result_of
from tests.support.worker_process import worker_process
from tests.support.workers import plan_of as gated_plan
from tests.support.workers import quick, working


@pytest.fixture
async def wide(engine_kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with four partitions."""
    async with cluster_of(engine_kafka, topics, partitions=4) as one:
        yield one


def asking(run_id: str, *, session: str | None = None, **options: JsonValue) -> InvokeRequest:
    parameters = AgentParameters.model_validate(
        {"harness": {"kind": "scripted", "options": options}, "model": "some/model", "retry": {"base_ms": 0}}
    )
    return InvokeRequest(
        id=run_id,
        session_id=session,
        messages=(Message.of_text("user", f"ask {run_id}"),),
        parameters=parameters,
        metadata={"name": run_id},
    )


async def played(cluster: Cluster, *requests: InvokeRequest) -> None:
    """Have a worker run these."""
    for request in requests:
        await cluster.send(request)
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix)):
        await cluster.tail.all_results(*(request.id or "" for request in requests))


async def test_runs_are_recorded_with_the_events_of_the_attempt_that_counts(wide: Cluster, tmp_path: Path) -> None:
    await played(
        wide,
        asking("plain", session="one", text="a few words"),
        asking("retried", session="two", text="at last", fail_attempts=2),
        asking("failed", session="one", error="provider_error"),
        asking("tools", session="one", tools=[{"name": "read", "arguments": {"path": "x"}, "result": "whole file"}]),
    )
    runs = await captured(wide, tmp_path / "recording")
    assert {name: (run.session_id, run.turn) for name, run in runs.items()} == {
        "plain": ("one", 0),
        "retried": ("two", 0),
        "failed": ("one", 1),
        "tools": ("one", 2),
    }
    for name, run in runs.items():
        assert run.gaps == ()
        assert run.result is not None
        assert [event.seq for event in run.events] == list(range(run.result.last_seq + 1))
        assert isinstance(run.events[-1], RunEnded)
        assert run.request == asking(name, session=run.session_id, **_options(run.request))
    retried = runs["retried"].result
    assert retried is not None
    assert (retried.attempt, retried.status) == (3, "completed")
    assert sum(isinstance(event, RunStarted) for event in runs["retried"].events) == 1
    assert [event.content for event in runs["tools"].events if isinstance(event, ToolEnded)] == ["whole file"]
    manifest = RecordingReader.open(tmp_path / "recording").manifest
    assert manifest.statuses == {"completed": 3, "failed": 1}
    assert (manifest.runs, manifest.sessions) == (4, 2)
    assert manifest.events == sum(len(run.events) for run in runs.values())


def _options(request: InvokeRequest) -> dict[str, JsonValue]:
    harness = request.parameters.harness
    assert harness is not None
    return harness.options


async def test_each_way_to_choose_runs_chooses_these_and_no_others(wide: Cluster, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    await played(
        wide, asking("a", session="one", text="x"), asking("b", session="two", error="provider_error"),
        asking("c", session="one", text="y"),
    )  # fmt: skip
    await wide.send(asking("d", session="three"))
    later = datetime.now(UTC) + timedelta(seconds=60)
    choices: list[tuple[dict[str, object], set[str]]] = [
        ({}, {"a", "b", "c", "d"}),
        ({"since": before - timedelta(seconds=5), "until": later}, {"a", "b", "c", "d"}),
        ({"sessions": frozenset({"one"})}, {"a", "c"}),
        ({"runs": frozenset({"b"})}, {"b"}),
        ({"outcomes": frozenset({"completed"})}, {"a", "c"}),
        ({"outcomes": frozenset({"failed", "unfinished"})}, {"b", "d"}),
        ({"codes": frozenset({"provider_error"})}, {"b"}),
        ({"models": frozenset({"some/model"})}, {"a", "b", "c", "d"}),
        ({"metadata": (("name", "c"),)}, {"c"}),
        ({"limit": 2}, {"a", "b"}),
    ]
    for number, (selection, expected) in enumerate(choices):
        runs = await captured(wide, tmp_path / str(number), None, **selection)
        assert set(runs) == expected, selection
    d = (await captured(wide, tmp_path / "d", runs=frozenset({"d"})))["d"]
    assert (d.gaps, d.result, d.events) == (("no_result",), None, ())
    source = (await captured(wide, tmp_path / "a", runs=frozenset({"a"})))["a"].source
    assert source is not None
    number, at = source.partition, source.offset
    one = await captured(wide, tmp_path / "offsets", from_offsets={number: at}, to_offsets={number: at + 1})
    assert list(one) == ["a"]
    # Seeds whose samples hold some sessions and not others; each session is whole, and the same seed draws the same.
    samples = [
        set(await captured(wide, tmp_path / f"sample-{n}", sample=0.5, seed=seed))
        for n, seed in enumerate((1, 1, 0, 7))
    ]
    assert samples == [{"a", "c"}, {"a", "c"}, {"b"}, {"a", "c", "d"}]
    with pytest.raises(RecordingError, match=r"nothing matches: 4 offsets of .* were looked at"):
        await capture(wide, tmp_path / "none", sessions=frozenset({"nobody"}))
    with pytest.raises(RecordingError, match="nothing matches: 0 offsets"):
        await capture(wide, tmp_path / "future", since=later)
    with pytest.raises(RecordingError, match="has the partitions 0 to 3"):
        await capture(wide, tmp_path / "partition", from_offsets={4: 0})


async def test_zombies_repetitions_and_losses_on_the_log_are_told_apart(cluster: Cluster, tmp_path: Path) -> None:
    """A zombie writes after the result; a replaced producer sends again, cut otherwise; a middle piece expired."""
    runs = [await cluster.submit(name) for name in ("clean", "holey", "none", "repeated")]
    await cluster.submit("clean")
    async with outputs_of(cluster) as outputs:
        clean, holey, none, repeated = runs
        await outputs.events(clean, answer("void"), claim=1, attempt=1)
        await outputs.events(clean, answer("good"), claim=2, attempt=1)
        await outputs.events(holey, answer("one ", "two")[:2])
        await outputs.events(holey, answer("one ", "two")[4:], first_seq=4)
        events = answer("again")
        await outputs.events(repeated, events[:3])
        await outputs.events(repeated, events[1:], first_seq=1)
        await outputs.events(repeated, events[3:], first_seq=3)
        await outputs.results((await outputs.result(clean, claim=2, last_seq=6), "aborted"), commit=False)
        await outputs.result(holey, last_seq=7)
        await outputs.result(none, last_seq=3)
        await outputs.result(repeated, last_seq=len(events) - 1)
        await outputs.events(clean, answer("late zombie"), claim=1, attempt=2)
        await outputs.raw_results((b"{", ()))
    found = await captured(cluster, tmp_path / "recording")
    assert {name: run.gaps for name, run in found.items()} == {
        "clean": (),
        "holey": ("events_incomplete",),
        "none": ("no_events",),
        "repeated": (),
    }
    deltas = [event.delta for event in found["clean"].events if isinstance(event, PartDelta)]
    assert deltas == ["good"]
    assert [event.seq for event in found["repeated"].events] == list(range(len(events)))
    assert [event.seq for event in found["holey"].events] == [0, 1, 4, 5, 6, 7]
    manifest = RecordingReader.open(tmp_path / "recording").manifest
    assert manifest.gaps == {"events_incomplete": 1, "no_events": 1}
    assert (manifest.left_out.repeated, manifest.left_out.unreadable) == (1, 1)


async def test_what_retention_took_is_said(cluster: Cluster, tmp_path: Path) -> None:
    await played(cluster, asking("old", text="x"), asking("new", text="y"))
    await cluster.expire_requests(1)
    end = await cluster.end_of(cluster.topics.stream_deltas)
    where = TopicPartition(cluster.topics.stream_deltas, 0)
    await cluster._admin.delete_records({where: RecordsToDelete(end)})
    manifest = await capture(cluster, tmp_path / "recording")
    assert manifest.gaps == {"no_events": 1}
    assert {found.topic.rpartition(".")[2]: found.log_start for found in manifest.topics} == {
        "invoke-requests": 1,
        "assistant-messages": 0,
        "stream-deltas": end,
    }
    await cluster.expire_requests(2)
    with pytest.raises(RecordingError, match="2 before them are no longer on the log"):
        await capture(cluster, tmp_path / "nothing")


async def test_a_run_that_was_taken_over_is_recorded_as_its_second_owner_told_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    harness = GatedHarness()
    async with worker_process(cluster, "killed") as worker:
        await cluster.submit("run")
        await worker.until_started("run")
        await cluster.until_marked(1)
        worker.send(signal.SIGKILL)
        async with working(quick(gated_plan(cluster, harness, name="heir"))) as heir:
            await harness.finished("run", "by the heir")
            await cluster.tail.all_results("run")
            await heir.stop()
    run = (await captured(cluster, tmp_path / "recording"))["run"]
    assert run.result is not None
    assert (run.result.crashes, run.gaps) == (1, ())
    assert "".join(event.delta for event in run.events if isinstance(event, PartDelta)) == "begun by the heir"


async def test_a_secret_split_over_two_deltas_is_in_no_file(cluster: Cluster, tmp_path: Path) -> None:
    submitted = await cluster.submit("run", text="my mail is ann@example.com")
    pieces = ["call ann@exa", "mple.com, key can", "ary-0123456789!"]
    async with outputs_of(cluster) as outputs:
        events = answer(*pieces)
        await outputs.events(submitted, events)
        await outputs.result(submitted, last_seq=len(events) - 1, text="".join(pieces))
    rules = Rules(Redactor(["canary-0123456789"]), [r"\w+@[\w.]+"])
    run = (await captured(cluster, tmp_path / "recording", rules))["run"]
    text = (tmp_path / "recording" / "runs-00001.jsonl").read_text()
    assert not [word for word in ("ann", "example", "canary", "0123456789") if word in text]
    deltas = [event.delta for event in run.events if isinstance(event, PartDelta)]
    assert deltas == [f"call {REDACTED}", f", key {REDACTED}", "!"]
    assert {found.rule: found.runs for found in rules.report()} == {"secrets": 1, r"\w+@[\w.]+": 1}


async def test_a_result_of_another_request_with_the_same_id_is_not_taken_for_this_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The topic of requests was made anew, or the id given twice far apart: the result's header says whose it is."""
    submitted = await cluster.submit("run")
    topic = cluster.topics.invoke_requests
    async with outputs_of(cluster) as outputs:
        other = result_of(run_id="run", last_seq=-1, text="of the other")
        mine = result_of(run_id="run", last_seq=-1, text="mine")
        await outputs.raw_results((other.to_bytes(), [("agentstream-request", f"{topic}/0/99".encode())]))
        await outputs.raw_results((mine.to_bytes(), [("agentstream-request", str(submitted.position).encode())]))
    run = (await captured(cluster, tmp_path / "recording"))["run"]
    assert run.result is not None
    assert run.result.text == "mine"


async def test_records_that_are_no_requests_are_counted(cluster: Cluster, tmp_path: Path) -> None:
    async with idempotent_producer(cluster.connection, max_request_size=1_000_000) as producer:
        await producer.send_and_wait(cluster.topics.invoke_requests, b"{", partition=0)
    await cluster.submit("run")
    manifest = await capture(cluster, tmp_path / "recording", events=False)
    assert (manifest.left_out.rejected, manifest.runs, manifest.selection) == (1, 1, {"events": False})
