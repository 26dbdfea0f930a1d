"""What a caller sees of a run, whatever stands on the log and in whatever order. The outputs are written by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agentstream.consumers.client import (
    AgentClient,
    ResultUnreadable,
    Run,
    RunFailed,
    RunTimeout,
    Voided,
)
from agentstream.consumers.client.run import LATE_DELTAS_SECONDS
from agentstream.schemas.events import PartDelta, RunRetrying, RunStarted
from agentstream.schemas.headers import INVOKE_RESULT, cloud_event
from agentstream.schemas.results import InvokeResult
from tests.support.callers import CALLER, client_of, kinds
from tests.support.cluster import Cluster
from tests.support.frames import Api
from tests.support.outputs import TRACE, Outputs, answer
from tests.support.proxy import Hold, KafkaProxy
from tests.support.runs import flush, result_of
from tests.support.waiting import WAIT_SECONDS, awaited


async def next_until(run: Run, wanted: Callable[[object], bool]) -> list[object]:
    """Take events up to and including one."""
    taken: list[object] = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for event in run:
            taken.append(event)
            if wanted(event):
                return taken
    raise AssertionError(f"it ended after {taken}")


def is_delta(text: str) -> Callable[[object], bool]:
    return lambda event: isinstance(event, PartDelta) and event.delta == text


async def test_events_come_while_it_runs_and_then_the_result(client: AgentClient, outputs: Outputs) -> None:
    events = answer("hel", "lo")
    async with client.stream("hi", session_id="s1", metadata={"k": "v"}) as run:
        assert run.session_id == run.submitted.session_id == "s1"
        await outputs.events(run.submitted, events[:4])
        seen = await next_until(run, is_delta("hel"))
        assert run.transcript.text == "hel"
        await outputs.events(run.submitted, events[4:], first_seq=4)
        expected = await outputs.result(run.submitted, last_seq=len(events) - 1, text="hello")
        seen += [event async for event in run]
        result = await run.result()
    assert kinds(seen) == kinds(events)
    assert result == expected
    assert run.transcript.messages() == result.messages
    assert not run.lagged


async def invoke(client: AgentClient) -> InvokeResult:
    return await client.invoke("hi", timeout=WAIT_SECONDS, run_id="quick")


async def submit_and_wait(client: AgentClient) -> InvokeResult:
    return await client.wait(await client.submit("hi", run_id="quick"), timeout=WAIT_SECONDS)


async def stream(client: AgentClient) -> InvokeResult:
    async with client.stream("hi", timeout=WAIT_SECONDS, run_id="quick") as run:
        assert kinds(await _all(run)) == kinds(answer("ok"))
        return await run.result()


@pytest.mark.parametrize("call", [invoke, submit_and_wait, stream])
@pytest.mark.parametrize("others_wait", [False, True])
async def test_an_answer_that_is_there_before_the_request_is_acknowledged_is_not_missed(
    cluster: Cluster,
    outputs: Outputs,
    monkeypatch: pytest.MonkeyPatch,
    *,
    others_wait: bool,
    call: Callable[[AgentClient], Awaitable[InvokeResult]],
) -> None:
    """A fast worker and a slow acknowledgement: who looks for the end of the log, or begins to listen, only then never
    sees the result."""
    monkeypatch.setattr("agentstream.consumers.client.follower.FRESH_SECONDS", 0.0)
    async with (
        KafkaProxy(cluster.bootstrap_servers) as proxy,
        client_of(cluster, through=proxy.bootstrap_servers) as client,
        asyncio.TaskGroup() as group,
    ):
        other = group.create_task(client.invoke("hi", run_id="other")) if others_wait else None
        await outputs.requests(int(others_wait))
        slow = proxy.on(Api.PRODUCE, do=Hold.ANSWER, client=CALLER)
        called = group.create_task(awaited(call(client)))
        requests = await outputs.requests(1 + others_wait)
        quick = next(sent for sent, _ in requests if sent.run_id == "quick")
        await outputs.whole_run(quick)
        if other is not None:
            # Behind it on the same partition: once this one is seen, the other one was read.
            await outputs.result(replace(quick, run_id="other"), last_seq=-1)
            await other
        slow.lift()
        assert (await called).run_id == "quick"


async def test_a_zombies_late_events_are_not_shown(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, answer("new")[:4], claim=2)
        await outputs.events(run.submitted, answer("zombie"), claim=1, attempt=3)
        await outputs.events(run.submitted, answer("new")[4:], claim=2, first_seq=4)
        await outputs.result(run.submitted, claim=2, last_seq=6)
        seen = [event async for event in run]
    assert kinds(list(seen)) == kinds(list(answer("new")))
    assert run.transcript.text == "new"


async def test_what_was_shown_of_a_lost_attempt_is_said_to_be_void(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, answer("lost")[:4], attempt=1)
        await next_until(run, is_delta("lost"))
        await outputs.events(run.submitted, answer("right"), attempt=2)
        await outputs.result(run.submitted, attempt=2, last_seq=6)
        rest: list[object] = [event async for event in run]
    assert rest[0] == Voided()
    assert kinds(rest[1:]) == kinds(list(answer("right")))


async def test_an_attempt_that_gives_up_says_so_before_it_is_void(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, [*answer("lost")[:4], RunRetrying(delay_ms=1)], attempt=1)
        await next_until(run, lambda event: isinstance(event, RunRetrying))
        assert run.transcript.text == ""
        await outputs.events(run.submitted, answer("right"), attempt=2)
        taken = await next_until(run, lambda event: isinstance(event, RunStarted))
    assert kinds(taken) == ["voided", "run.started"]


async def test_events_that_were_sent_again_are_shown_once(client: AgentClient, outputs: Outputs) -> None:
    events = answer("a", "b", "c")
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, events[:5])
        await outputs.events(run.submitted, events[2:6], first_seq=2)
        await outputs.events(run.submitted, events[4:], first_seq=4)
        await outputs.result(run.submitted, last_seq=len(events) - 1)
        seen = [event.seq async for event in run if not isinstance(event, Voided)]
    assert seen == list(range(len(events)))


async def test_deltas_that_come_after_the_result_are_still_shown(client: AgentClient, outputs: Outputs) -> None:
    events = answer("late")
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, events[:2])
        await outputs.result(run.submitted, last_seq=len(events) - 1)
        await run.result()
        await outputs.events(run.submitted, events[2:], first_seq=2)
        assert kinds([event async for event in run]) == kinds(events)


async def test_deltas_that_never_come_do_not_hold_a_caller_for_ever(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, answer("cut")[:2])
        await outputs.result(run.submitted, last_seq=6, text="cut")
        result = await run.result()
        loop = asyncio.get_running_loop()
        known_at = loop.time()
        async with asyncio.timeout(WAIT_SECONDS):
            assert len([event async for event in run]) == 2
        assert loop.time() - known_at >= LATE_DELTAS_SECONDS * 0.9
    assert result.text == "cut"


async def test_a_result_whose_attempt_never_spoke_ends_at_once_and_voids_what_was_shown(
    client: AgentClient, outputs: Outputs
) -> None:
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, answer("lost")[:4])
        await next_until(run, is_delta("lost"))
        await outputs.result(run.submitted, claim=5, attempt=None, last_seq=-1)
        assert [event async for event in run] == [Voided()]
        assert (await run.result()).status == "failed"


async def test_a_record_that_is_no_delta_is_a_gap_and_no_error(
    client: AgentClient, outputs: Outputs, cluster: Cluster
) -> None:
    events = answer("ok")
    async with client.stream("hi") as run:
        await outputs.events(run.submitted, events[:4])
        broken = flush(events[4:5], run_id=run.run_id, first_seq=4).model_copy(update={"claim": -1})
        await outputs.stream(broken, run.submitted.position.partition)
        await outputs.events(run.submitted, events[5:], first_seq=5)
        await outputs.result(run.submitted, last_seq=6)
        await next_until(run, lambda event: getattr(event, "type", "") == "run.ended")
        assert run.transcript.rule.missing == (range(4, 5),)


async def test_a_slow_caller_lags_alone(cluster: Cluster, outputs: Outputs) -> None:
    pieces = [f"{number} " * 25 for number in range(400)]
    events = answer(*pieces)
    async with (
        client_of(cluster, max_buffered_bytes=100_000) as client,
        client.stream("hi") as slow,
        client.stream("hi") as quick,
    ):
        seen = []
        for first in range(0, len(events), 40):
            for run in (slow, quick):
                await outputs.events(run.submitted, events[first : first + 40], first_seq=first)
            last = min(first + 40, len(events)) - 1
            seen += await next_until(quick, lambda event, last=last: getattr(event, "seq", -1) == last)  # type: ignore[misc]
        assert kinds(seen) == kinds(events)
        assert not quick.lagged
        await outputs.result(slow.submitted, last_seq=len(events) - 1)
        await slow.result()
        late = await _all(slow)
        assert slow.lagged
        assert "part.delta" not in kinds(late)
        assert kinds(late)[-3:] == ["part.ended", "message.ended", "run.ended"]
        assert slow.transcript.text == "".join(pieces)


async def _all(run: Run) -> list[object]:
    return [event async for event in run]


async def test_who_leaves_early_only_stops_following(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as left:
        await outputs.events(left.submitted, answer("so far")[:4])
        await next_until(left, is_delta("so far"))
    await outputs.result(left.submitted, last_seq=6, text="all")
    assert (await client.wait(left.submitted)).text == "all"


async def test_patience_ends_and_the_run_can_be_waited_for_again(client: AgentClient, outputs: Outputs) -> None:
    await client.submit("hi")  # everything is connected: what follows waits for nothing but the result
    with pytest.raises(RunTimeout) as ended:
        await client.invoke("hi", timeout=2.0)
    submitted = ended.value.submitted
    assert isinstance(ended.value, TimeoutError)
    await outputs.whole_run(submitted, "at last")
    assert (await client.wait(submitted, timeout=WAIT_SECONDS)).text == "at last"


async def test_iterating_ends_with_the_callers_patience_too(client: AgentClient) -> None:
    await client.submit("hi")
    async with client.stream("hi", timeout=2.0) as run:
        with pytest.raises(RunTimeout):
            await anext(run)
        with pytest.raises(RunTimeout):
            await run.result()


async def test_what_was_sent_is_waited_for_by_another_client_later(cluster: Cluster, outputs: Outputs) -> None:
    async with client_of(cluster) as first:
        submitted = [await first.submit(f"hi {number}") for number in range(4)]
    for number, run in enumerate(submitted):
        await outputs.whole_run(run, f"answer {number}")
    async with client_of(cluster) as second:
        # Something later on both partitions, so that nothing is found by being the newest.
        busy = asyncio.create_task(second.invoke("busy"))
        results = await asyncio.gather(*(second.wait(run) for run in submitted))
        busy.cancel()
        async with second.follow(submitted[0]) as followed:
            seen = await _all(followed)
    assert [result.text for result in results] == [f"answer {number}" for number in range(4)]
    assert kinds(seen) == kinds(list(answer("answer 0")))


async def test_two_clients_each_get_their_own(cluster: Cluster, outputs: Outputs) -> None:
    async with (
        client_of(cluster) as one,
        client_of(cluster) as two,
        one.stream("hi", session_id="same") as first,
        two.stream("hi", session_id="same") as second,
    ):
        assert first.submitted.position.partition == second.submitted.position.partition
        await outputs.whole_run(second.submitted, "two")
        await outputs.whole_run(first.submitted, "one")
        assert (await first.result()).text == "one"
        assert (await second.result()).text == "two"
        assert first.transcript.text == "one"
        assert [kinds(await _all(run)) for run in (first, second)] == [kinds(list(answer("x")))] * 2


async def test_a_failed_run_is_a_result_and_an_exception_only_for_who_asks(
    client: AgentClient, outputs: Outputs
) -> None:
    submitted = await client.submit("hi")
    expected = await outputs.result(submitted, attempt=None, last_seq=-1)
    assert await client.wait(submitted) == expected
    with pytest.raises(RunFailed) as failed:
        await client.wait(submitted, check=True)
    assert failed.value.result == expected


async def test_a_result_that_cannot_be_read_is_said_to_its_caller_only(client: AgentClient, outputs: Outputs) -> None:
    async with client.stream("hi") as broken, client.stream("hi") as sound:
        await outputs.raw_results(
            (b"{}", cloud_event(INVOKE_RESULT, broken.run_id, TRACE)), partition=broken.submitted.position.partition
        )
        await outputs.whole_run(sound.submitted)
        with pytest.raises(ResultUnreadable):
            await broken.result()
        with pytest.raises(ResultUnreadable):
            await anext(broken)
        assert (await sound.result()).text == "ok"


async def test_a_result_whose_headers_name_no_run_is_found_by_its_body(client: AgentClient, outputs: Outputs) -> None:
    submitted = await client.submit("hi")
    result = result_of(run_id=submitted.run_id)
    await outputs.raw_results((b"not JSON", ()), (result.to_bytes(), ()), partition=submitted.position.partition)
    assert await client.wait(submitted, timeout=WAIT_SECONDS) == result


async def test_an_aborted_result_is_never_seen(client: AgentClient, outputs: Outputs) -> None:
    submitted = await client.submit("hi")
    partition = submitted.position.partition
    aborted = result_of(run_id=submitted.run_id, text="aborted")
    await outputs.results((aborted, submitted.run_id), partition=partition, commit=False)
    await outputs.whole_run(submitted, "committed")
    assert (await client.wait(submitted)).text == "committed"
