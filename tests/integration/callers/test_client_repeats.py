"""The same request sent again: nothing runs twice, and whoever waits on the second one gets the one result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from agentstream.consumers.client import AgentClient, ResultExpired, RunIdTaken
from agentstream.consumers.client.finished import FinishedRuns
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.headers import INVOKE_RESULT, cloud_event
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import FinishedRun, InvokeResult
from tests.support.callers import client_of
from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness
from tests.support.outputs import TRACE, Outputs
from tests.support.runs import result_of
from tests.support.waiting import WAIT_SECONDS, awaited, eventually
from tests.support.workers import Running, plan_of, working

MINE = InvokeRequest(id="mine", session_id="s", messages=(Message.of_text("user", "hi"),))
OTHER = InvokeRequest(id="mine", session_id="s", messages=(Message.of_text("user", "something else"),))


@pytest.fixture
def harness() -> GatedHarness:
    """Runs end when a test says so."""
    return GatedHarness()


@pytest.fixture
async def worker(cluster: Cluster, harness: GatedHarness) -> AsyncIterator[Running]:
    async with working(plan_of(cluster, harness)) as one:
        yield one
        harness.finish_all()


async def invoke(client: AgentClient, request: InvokeRequest = MINE) -> InvokeResult:
    return await client.invoke(request, timeout=WAIT_SECONDS)


async def submit_and_wait(client: AgentClient, request: InvokeRequest = MINE) -> InvokeResult:
    return await client.wait(await client.submit(request), timeout=WAIT_SECONDS)


async def stream(client: AgentClient, request: InvokeRequest = MINE) -> InvokeResult:
    async with client.stream(request, timeout=WAIT_SECONDS) as run:
        async for _ in run:
            pass
        return await run.result()


async def follow(client: AgentClient, request: InvokeRequest = MINE) -> InvokeResult:
    async with client.follow(await client.submit(request), timeout=WAIT_SECONDS) as run:
        async for _ in run:
            pass
        return await run.result()


CALLS = [invoke, submit_and_wait, stream, follow]
Call = Callable[..., Awaitable[InvokeResult]]


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_sent_again_after_its_run_ended_gets_that_runs_result(
    cluster: Cluster, harness: GatedHarness, worker: Running, call: Call
) -> None:
    """A worker passes a duplicate over without a word: the caller of the second one waited for ever."""
    harness.finish_all()
    async with client_of(cluster) as client:
        first = await invoke(client)
        assert await call(client) == first
    async with client_of(cluster) as stranger:
        assert await call(stranger) == first
        assert await call(stranger) == first
    assert len(harness.runs) == 1
    await worker.stop()
    await cluster.audit("mine")


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_sent_again_while_its_run_is_under_way_gets_its_result(
    cluster: Cluster, harness: GatedHarness, worker: Running, call: Call
) -> None:
    async with client_of(cluster) as one, client_of(cluster) as two, asyncio.TaskGroup() as group:
        first = group.create_task(one.invoke(MINE, timeout=WAIT_SECONDS))
        await harness.started("mine")
        second = group.create_task(awaited(call(two)))
        await both_were_read(cluster)
        await harness.finished("mine")
    assert second.result() == first.result()
    assert len(harness.of("mine")) == 1


async def both_were_read(cluster: Cluster) -> None:
    """Wait until the worker's commits speak of the second request as well."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not any([await seen(cluster, partition) >= 2 for partition in range(2)]):
            await asyncio.sleep(0.05)


async def seen(cluster: Cluster, partition: int) -> int:
    commit = await cluster.committed(partition)
    return commit.state.next_offset if commit.metadata else 0


async def test_many_callers_with_one_id_at_once_get_one_result(
    cluster: Cluster, harness: GatedHarness, worker: Running
) -> None:
    harness.finish_all()
    async with client_of(cluster) as one, client_of(cluster) as two:
        results = await asyncio.gather(*(call(client) for call in CALLS for client in (one, two) for _ in range(5)))
    assert {result.attempt_id for result in results} == {results[0].attempt_id}
    assert len(harness.runs) == 1


async def test_it_is_found_behind_many_others_and_after_a_takeover(cluster: Cluster) -> None:
    async with client_of(cluster) as client:
        async with working(plan_of(cluster, GatedHarness(gates_open=True))) as before:
            first = await invoke(client)
            await asyncio.gather(*(client.invoke("hi", session_id="s", timeout=WAIT_SECONDS) for _ in range(50)))
            await before.stop()
        harness = GatedHarness(gates_open=True)
        async with working(plan_of(cluster, harness, name="b")), client_of(cluster) as another:
            assert await invoke(another) == first
            assert await invoke(client) == first
        assert harness.runs == []


@pytest.mark.parametrize("call", CALLS)
async def test_another_request_under_an_id_that_was_used_is_told_so(
    cluster: Cluster, harness: GatedHarness, worker: Running, call: Call
) -> None:
    harness.finish_all()
    async with client_of(cluster) as client:
        await invoke(client)
        with pytest.raises(RunIdTaken, match="run id mine was used before, with another body"):
            await call(client, OTHER)
    assert len(harness.runs) == 1


@pytest.mark.parametrize("call", CALLS)
async def test_another_request_under_the_id_of_a_run_under_way_is_told_so_before_that_ends(
    cluster: Cluster, harness: GatedHarness, worker: Running, call: Call
) -> None:
    """And it does not end the other's run: `stream` cancels its run when it is left early, by this id."""
    async with client_of(cluster) as one, client_of(cluster) as two, asyncio.TaskGroup() as group:
        first = group.create_task(one.invoke(MINE, timeout=WAIT_SECONDS))
        await harness.started("mine")
        with pytest.raises(RunIdTaken):
            await call(two, OTHER)
        assert not first.done()
        await harness.finished("mine")
    assert first.result().status == "completed"


async def test_a_refused_request_of_the_callers_own_id_has_its_failed_result_both_times(
    cluster: Cluster, worker: Running
) -> None:
    refused = MINE.model_copy(update={"parameters": MINE.parameters.model_copy(update={"tools": ("bash",)})})
    async with client_of(cluster) as client:
        first = await invoke(client, refused)
        assert first.status == "failed"
        assert await invoke(client, refused) == first


async def test_a_result_that_is_no_longer_on_the_log_is_said_to_be_gone(
    cluster: Cluster, harness: GatedHarness, worker: Running
) -> None:
    harness.finish_all()
    async with client_of(cluster) as client:
        first = await invoke(client)
        where = TopicPartition(cluster.topics.assistant_messages, first.partition)
        end = await cluster.end_of(where.topic, where.partition)
        await cluster._admin.delete_records({where: RecordsToDelete(end)})
        with pytest.raises(ResultExpired):
            await invoke(client)


async def test_a_result_of_the_first_sending_counts_where_no_index_tells(
    cluster: Cluster, client: AgentClient, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement that was lost: the request lies twice on the log, and the result names the first one."""
    monkeypatch.setattr("agentstream.consumers.client.lookback.LOOKS_IN_VAIN", 2)
    async with asyncio.TaskGroup() as group:
        called = group.create_task(invoke(client))
        ((sent, _),) = await outputs.requests(1)
        elsewhere = Position(topic=sent.position.topic, partition=sent.position.partition, offset=99)
        result = result_of(run_id="mine", partition=sent.position.partition)
        headers = cloud_event(INVOKE_RESULT, "mine", TRACE, request=elsewhere)
        await outputs.raw_results((result.to_bytes(), headers), partition=sent.position.partition)
    assert called.result() == result


async def test_a_missing_index_costs_the_caller_of_a_new_run_nothing(
    cluster: Cluster, client: AgentClient, outputs: Outputs, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.delete_topic(cluster.topics.finished_runs)
    async with asyncio.TaskGroup() as group:
        called = group.create_task(invoke(client))
        ((sent, _),) = await outputs.requests(1)
        await eventually(lambda: "should it have ended before, its result is not found" in caplog.text, "it is said")
        await outputs.whole_run(sent)
    assert called.result().run_id == "mine"


async def write_lines(cluster: Cluster, *run_ids: str) -> None:
    line = FinishedRun.bounded(status="completed", session_id="s", offset=1, attempt_id=None, body_hash="0" * 16)
    async with idempotent_producer(cluster.connection, max_request_size=100_000) as producer:
        for run_id in run_ids:
            await producer.send(cluster.topics.finished_runs, line.to_bytes(), key=run_id.encode(), partition=0)
        await producer.flush()


async def found_of(finished: FinishedRuns, *run_ids: str) -> list[str]:
    return [run_id for run_id in run_ids if await finished.find(0, run_id, 0) is not None]


async def test_looks_remember_a_window_of_runs_and_no_more(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstream.consumers.client.finished.WINDOW", 10)
    finished = FinishedRuns(cluster.connection, cluster.topics)
    try:
        for first in range(0, 100, 25):
            await write_lines(cluster, *(f"run-{number}" for number in range(first, first + 25)))
            known = await found_of(finished, *(f"run-{number}" for number in range(first + 25)))
            assert known == [f"run-{number}" for number in range(first + 15, first + 25)]
            assert {len(lines) for lines in finished._lines.values()} == {10}
    finally:
        await finished.close()


async def test_an_index_that_was_made_anew_is_read_anew(cluster: Cluster) -> None:
    finished = FinishedRuns(cluster.connection, cluster.topics)
    try:
        await write_lines(cluster, "old", "older")
        assert await found_of(finished, "old", "new") == ["old"]
        await cluster.delete_topic(cluster.topics.finished_runs)
        await cluster.make_topic(cluster.topics.finished_runs)
        await write_lines(cluster, "new")
        await _until_found(finished, "new")
        assert await found_of(finished, "old") == []
    finally:
        await finished.close()


async def _until_found(finished: FinishedRuns, run_id: str) -> None:
    """Kafka forgets a deleted topic in its own time."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await found_of(finished, run_id) == []:
            await asyncio.sleep(0.05)
