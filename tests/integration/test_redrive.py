"""Dead letters sent again, over a real Kafka: each once, as a run of its own, whatever kills it in the middle."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.dead_letters import DeadLetters, Selection
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.readers import Expired
from agentstream.consumers.redrive import Counts, RedrivePlan, Redriver, Step
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.errors import Fenced
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.codec import body_hash
from agentstream.schemas.dead_letters import DeadLetter
from agentstream.schemas.redrive import Redrive
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES
from tests.chaos.audit import Line, end_offsets, read_topic
from tests.chaos.inside import plan_of, serving
from tests.integration.test_cli import Terminal
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api, setting
from tests.support.proxy import Cut, KafkaProxy, Rewrite
from tests.support.waiting import patience

INVALID_TXN_STATE = 48
ASKS_FOR_A_TOOL = {"parameters": {"tools": ["read"]}, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def wide(engine_kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with two partitions."""
    async with cluster_of(engine_kafka, topics, partitions=2) as one:
        yield one


def config(*tools: str) -> WorkerAgentConfig:
    return WorkerAgentConfig(
        harnesses={"scripted": ScriptedHarness()}, default_harness="scripted", tools=frozenset(tools)
    )


async def send(cluster: Cluster, *values: bytes, sessions: int = 5) -> None:
    async with idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES * 2) as producer:
        for number, value in enumerate(values):
            session = f"s{number % sessions}".encode()
            await producer.send(cluster.topics.invoke_requests, value, key=session, headers=[("mine", b"1")])
        await producer.flush()


def asking(run_id: str) -> bytes:
    return json.dumps({"id": run_id, **ASKS_FOR_A_TOOL}).encode()


async def refused(cluster: Cluster, *run_ids: str) -> None:
    """Have a worker without tools refuse these."""
    await send(cluster, *(asking(run_id) for run_id in run_ids))
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
        await cluster.tail.all_results(*run_ids)


async def run_again(cluster: Cluster, *run_ids: str) -> None:
    """Have a worker with the tool run what lies there."""
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config("read"))):
        await cluster.tail.all_results(*run_ids)


def plan(cluster: Cluster, name: str = "test", **selection: object) -> RedrivePlan:
    return RedrivePlan(
        connection=cluster.connection,
        dead_letters=cluster.topics.dead_letters,
        to=cluster.topics.invoke_requests,
        group_id=f"{cluster.group_id}-redrive-{name}",
        selection=Selection(**selection),  # type: ignore[arg-type]
        max_record_bytes=MAX_REQUEST_BYTES + OUTPUT_MARGIN_BYTES,
    )


async def redrive(wanted: RedrivePlan) -> tuple[Counts, list[Step]]:
    steps: list[Step] = []
    async with patience():
        counts = await Redriver(wanted, told=steps.append, progress=lambda _: None).run()
    return counts, steps


def again(run_ids: Iterable[str], count: int = 1) -> list[str]:
    return [Redrive(original_id=run_id, count=count).run_id for run_id in run_ids]


async def sent_again(cluster: Cluster) -> list[Line]:
    requests = await read_topic(cluster.bootstrap_servers, cluster.topics.invoke_requests)
    return [line for line in requests if "dlq-redrive-count" in line.headers]


async def letters(cluster: Cluster, **selection: object) -> list[DeadLetter]:
    reader = DeadLetters(cluster.connection, cluster.topics.dead_letters)
    found = [found async for found in reader.read(Selection(**selection))]  # type: ignore[arg-type]
    return [each.letter for each in found if not isinstance(each, Expired) and each.letter is not None]


async def test_a_dead_letter_sent_again_is_a_run_of_its_own_with_its_own_result(wide: Cluster) -> None:
    await refused(wide, "a", "b", "c")
    counts, steps = await redrive(plan(wide))
    assert (counts.looked_at, counts.sent, counts.refused) == (3, 3, 0)
    assert sorted(step.run_id or "" for step in steps) == sorted(again("abc"))
    await run_again(wide, *again("abc"))
    results = {result.run_id: result for result in wide.tail.results}
    assert len(wide.tail.results) == len(results) == 6
    for name, new in zip("abc", again("abc"), strict=True):
        assert (results[name].status, results[name].redrive_of) == ("failed", None)
        assert (results[new].status, results[new].redrive_of) == ("completed", name)
        assert (results[new].session_id, results[new].partition) == (results[name].session_id, results[name].partition)
    lines = await sent_again(wide)
    assert {line.headers["mine"] for line in lines} == {"1"}
    assert {name for line in lines for name in line.headers if name.startswith(("__dlq", "dlq"))} == {
        "dlq-redrive-count",
        "dlq-redrive-of",
    }


async def test_what_was_sent_is_not_sent_again_by_the_same_name_and_runs_once_under_any(wide: Cluster) -> None:
    await refused(wide, "a", "b")
    assert (await redrive(plan(wide)))[0].sent == 2
    assert (await redrive(plan(wide)))[0].looked_at == 0
    # Another name begins anew. The records are the same, so the worker takes the second ones for what they are.
    assert (await redrive(plan(wide, "other")))[0].sent == 2
    await send(wide, asking("last"))
    await run_again(wide, *again("ab"), "last")
    assert sorted(result.run_id for result in wide.tail.results) == sorted(["a", "b", "last", *again("ab")])


async def test_killed_in_the_middle_and_run_again_sends_each_exactly_once(wide: Cluster, tmp_path: Path) -> None:
    names = [f"run-{number}" for number in range(200)]
    await refused(wide, *names)
    terminal = Terminal(
        home=tmp_path,
        variables={
            "KAFKA_BOOTSTRAP_SERVERS": wide.bootstrap_servers,
            "AGENTSTREAM_TOPIC_PREFIX": wide.topics.prefix,
            "AGENTSTREAM_GROUP_ID": wide.group_id,
            "AGENTSTREAM_HARNESSES": "scripted",
        },
    )
    command = ("dead-letters", "redrive", "--batch", "1", "--json")
    for kills in (1, 2):
        killed = await terminal.start(*command)
        # Each transaction of one record takes two offsets.
        before = sum((await end_offsets(wide.bootstrap_servers, wide.topics.invoke_requests)).values())
        async with patience():
            while sum((await end_offsets(wide.bootstrap_servers, wide.topics.invoke_requests)).values()) < before + 60:
                await asyncio.sleep(0.02)
        killed.kill()
        await killed.communicate()
        assert killed.returncode == -9, kills
    done = await terminal.type(*command)
    assert done.code == 0, done.err
    rest = json.loads(done.out)["sent"]
    assert 0 < rest < 200 - 40
    lines = await sent_again(wide)
    assert sorted(line.headers["dlq-redrive-of"] for line in lines) == sorted(names)
    await run_again(wide, *again(names))
    assert sorted(result.run_id for result in wide.tail.results) == sorted([*names, *again(names)])
    assert json.loads((await terminal.type(*command)).out)["looked_at"] == 0


async def test_of_two_at_once_under_one_name_the_later_goes_on_and_each_is_sent_once(wide: Cluster) -> None:
    names = [f"run-{number}" for number in range(60)]
    await refused(wide, *names)
    ended: list[str] = []

    async def go() -> None:
        try:
            await Redriver(replace(plan(wide), batch=1), told=lambda _: None, progress=lambda _: None).run()
        except Fenced:
            ended.append("fenced")
        else:
            ended.append("done")

    async with patience(), asyncio.TaskGroup() as group:
        group.create_task(go())
        while not await sent_again(wide):
            pass
        group.create_task(go())
    assert sorted(ended) == ["done", "fenced"]
    assert sorted(line.headers["dlq-redrive-of"] for line in await sent_again(wide)) == sorted(names)


async def test_what_dies_again_and_again_is_refused_in_the_end(cluster: Cluster) -> None:
    await refused(cluster, "a")
    tries = ["a"]
    for count in (1, 2):
        assert (await redrive(replace(plan(cluster), max_redrives=2)))[0].sent == 1
        tries += again("a", count)
        async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
            await cluster.tail.all_results(*tries)
    counts, (step,) = await redrive(replace(plan(cluster), max_redrives=2))
    assert (counts.sent, counts.looping, step.run_id) == (0, 1, None)
    assert [letter.redrives for letter in await letters(cluster)] == [0, 1, 2]
    # Under its own position it can still be sent by somebody who means it.
    assert (await redrive(replace(plan(cluster, "one", partition=0, offset=step.letter.position.offset))))[0].sent == 1


async def test_a_dry_run_sends_nothing_and_moves_nothing(wide: Cluster) -> None:
    await refused(wide, "a", "b")
    dry = replace(plan(wide), dry_run=True)
    assert [(await redrive(dry))[0].sent for _ in range(2)] == [2, 2]
    assert await sent_again(wide) == []
    assert (await redrive(plan(wide)))[0].sent == 2


async def test_at_most_so_many_and_the_next_time_the_rest(wide: Cluster) -> None:
    await refused(wide, *"abcde")
    sent = [(await redrive(replace(plan(wide), max_count=2)))[0].sent for _ in range(4)]
    assert sent == [2, 2, 1, 0]
    assert sorted(line.headers["dlq-redrive-of"] for line in await sent_again(wide)) == [*"abcde"]


async def died(cluster: Cluster, *deaths: tuple[int, int, str]) -> None:
    """Write dead letters: partition, seconds ago, run id."""
    now = time.time_ns() // 1_000_000
    async with idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES) as producer:
        for partition, ago, run_id in deaths:
            origin = {"topic": cluster.topics.invoke_requests, "partition": str(partition), "offset": "0"}
            headers = [(f"__dlq.errors.{name}", value.encode()) for name, value in origin.items()]
            headers += [("dlq-error-code", b"rate_limited"), ("dlq-run-id", run_id.encode())]
            await producer.send_and_wait(
                cluster.topics.dead_letters,
                asking(run_id),
                partition=partition,
                timestamp_ms=now - ago * 1000,
                headers=headers,
            )


@pytest.mark.parametrize("other", [0, 1])
async def test_the_oldest_come_first_whatever_partition_they_lie_in(wide: Cluster, other: int) -> None:
    # One partition was read after the other: `--max 1` showed, and sent again, that of yesterday before that of May.
    one = 1 - other
    await died(wide, (one, 50, "b"), (one, 40, "c"), (one, 20, "e"), (other, 60, "a"), (other, 30, "d"))
    assert [letter.run_id for letter in await letters(wide)] == [*"abcde"]
    for expected in ("a", "b"):
        counts, steps = await redrive(replace(plan(wide), max_count=1))
        assert (counts.sent, [step.run_id for step in steps]) == (1, again([expected]))


async def test_filters_choose_by_code_session_header_and_place(cluster: Cluster) -> None:
    bad = b'{"id":"bad","session_id":"other","messages":[]}'
    await send(cluster, asking("a"), bad, asking("c"), sessions=1)
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
        await cluster.tail.all_results("a", "bad", "c")

    async def chosen(**selection: object) -> list[str | None]:
        return [letter.run_id for letter in await letters(cluster, **selection)]

    assert await chosen() == ["a", "bad", "c"]
    assert await chosen(codes=frozenset({"schema_invalid"})) == ["bad"]
    assert await chosen(session="s0") == ["a", "c"]
    assert await chosen(headers=(("mine", "1"), ("dlq-run-id", "c"))) == ["c"]
    assert await chosen(headers=(("mine", "2"),)) == []
    first, second, _ = await letters(cluster)
    assert await chosen(partition=0, offset=second.position.offset) == ["bad"]
    assert first.position.offset < second.position.offset
    counts, _ = await redrive(plan(cluster, codes=frozenset({"tool_not_allowed"}), session="s0"))
    assert (counts.looked_at, counts.sent) == (3, 2)


async def test_what_is_too_new_for_one_time_is_sent_the_next_time(cluster: Cluster) -> None:
    # Passed over and committed past, nothing under this name would ever send it.
    await refused(cluster, "a")
    await refused(cluster, "b")
    _, later = await letters(cluster)
    until = datetime.fromtimestamp(later.timestamp_ms / 1000, UTC)
    assert (await redrive(plan(cluster, until=until)))[0].sent == 1
    assert (await redrive(plan(cluster, until=until)))[0].sent == 0
    assert (await redrive(plan(cluster)))[0].sent == 1
    assert (await redrive(plan(cluster, until=until)))[0].looked_at == 0
    assert [line.headers["dlq-redrive-of"] for line in await sent_again(cluster)] == ["a", "b"]


async def test_records_of_other_programs_are_left_out_and_counted(cluster: Cluster) -> None:
    await refused(cluster, "a")
    async with idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES) as producer:
        for value in (b"\xff", None, b"{}"):
            await producer.send_and_wait(cluster.topics.dead_letters, value, key=b"k", partition=0)
    counts, _ = await redrive(plan(cluster))
    assert (counts.looked_at, counts.sent, counts.broken, counts.refused) == (4, 1, 3, 0)


async def test_a_dead_letter_without_its_record_is_fetched_while_that_is_still_there(cluster: Cluster) -> None:
    # Taken by the input topic, and larger than anything that this worker may write.
    large = json.dumps({"id": "large", "messages": [{"role": "user", "content": "x" * 900_000}]}).encode()
    small = asking("small")
    headers = [("ce_id", b"large"), *((f"h{number}", b"v" * 900) for number in range(140))]
    async with idempotent_producer(cluster.connection, max_request_size=MAX_REQUEST_BYTES * 2) as producer:
        await producer.send_and_wait(cluster.topics.invoke_requests, large, key=b"s", headers=headers)
        await producer.send_and_wait(cluster.topics.invoke_requests, small, key=b"s")
    letters_only = DeadLetters(cluster.connection, cluster.topics.dead_letters)
    own = plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())
    async with serving(replace(own, max_request_bytes=500_000)):
        await cluster.tail.all_results("large", "small")
    (cut, _) = await letters(cluster)
    assert cut.truncated is not None
    assert cut.record.value == b""
    record = await letters_only.original(cut)
    assert record is not None
    assert (body_hash(record.value), len(record.headers)) == (body_hash(large), 141)
    assert (await redrive(plan(cluster)))[0].sent == 2
    (line, _) = await sent_again(cluster)
    assert (line.value, line.headers["dlq-redrive-of"], line.headers["h7"]) == (large, "large", "v" * 900)
    await cluster.expire_requests(1)
    counts, steps = await redrive(plan(cluster, "later"))
    assert (counts.sent, counts.lost) == (1, 1)
    assert "is gone" in (steps[0].why_not or "")


async def test_one_that_the_brokers_refuse_is_said_and_the_others_go(cluster: Cluster) -> None:
    await refused(cluster, "a", "b")
    await send(cluster, json.dumps({"id": "large", "x": "y" * 5_000, **ASKS_FOR_A_TOOL}).encode())
    await refused(cluster, "c")
    await cluster.configure(cluster.topics.invoke_requests, max_message_bytes=2_000)
    counts, _ = await redrive(plan(cluster))
    assert (counts.sent, counts.too_large) == (3, 1), asdict(counts)
    assert [line.headers["dlq-redrive-of"] for line in await sent_again(cluster)] == ["a", "b", "c"]
    assert (await redrive(plan(cluster)))[0].looked_at == 0


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
@pytest.mark.parametrize("api", [Api.ADD_PARTITIONS_TO_TXN, Api.PRODUCE, Api.END_TXN])
async def test_a_connection_cut_at_any_step_loses_nothing_and_repeats_nothing(
    cluster: Cluster, proxy: KafkaProxy, api: Api, cut: Cut
) -> None:
    await refused(cluster, *"abcd")
    slow = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="redrive")
    rule = proxy.on(api, client="redrive", do=cut)
    going = asyncio.create_task(redrive(replace(plan(cluster), connection=slow, batch=2)))
    await rule.hit(2)
    rule.lift()
    counts, _ = await going
    assert (counts.looked_at, counts.sent) == (4, 4)
    assert [line.headers["dlq-redrive-of"] for line in await sent_again(cluster)] == [*"abcd"]


async def test_the_markers_of_transactions_leave_the_workers_no_lag(cluster: Cluster) -> None:
    await refused(cluster, "a", "b")
    await redrive(replace(plan(cluster), batch=1))
    end = await cluster.end_of(cluster.topics.invoke_requests)
    assert end == 6
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config("read"))):
        await cluster.until_committed(end)


@pytest.mark.parametrize("api", [Api.END_TXN, Api.OFFSET_FETCH])
async def test_in_doubt_it_asks_how_far_it_has_come(cluster: Cluster, proxy: KafkaProxy, api: Api) -> None:
    # The transaction was committed, and the answer says something else; believed, its two would be sent twice.
    await refused(cluster, *"abcd")
    slow = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="redrive")
    odd = setting(error_code=INVALID_TXN_STATE) if api is Api.END_TXN else setting(error_code=14, topics=[])
    rule = proxy.on(api, client="redrive", do=Rewrite(odd), times=1)
    counts, _ = await redrive(replace(plan(cluster), connection=slow, batch=2))
    await rule.hit()
    assert (counts.looked_at, counts.sent) == (4, 4)
    assert [line.headers["dlq-redrive-of"] for line in await sent_again(cluster)] == [*"abcd"]
