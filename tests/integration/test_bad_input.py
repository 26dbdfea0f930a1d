"""Bad input: each record gets exactly one dead letter with its forensics, and the next record goes on."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.scripted import ScriptedHarness
from tests.chaos.audit import Json, Line, Log, everything_committed, one_line_each, read_log
from tests.chaos.fleet import Fleet, fleet_of
from tests.chaos.inside import plan_of, serving
from tests.golden.bad_input import BAD_INPUT, OK, body

ASKED_FOR_A_TOOL = body(parameters={"tools": ["bash"]})
PI = body(parameters={"harness": {"kind": "pi"}})
UNKNOWN = body(parameters={"harness": {"kind": "oracle"}})


@dataclass(frozen=True, kw_only=True)
class Sent:
    value: bytes | None
    key: bytes | None = b"session"
    headers: Sequence[tuple[str, bytes]] = ()


@pytest.fixture
async def fleet(kafka: str, topics: str, tmp_path: Any) -> AsyncIterator[Fleet]:
    async with fleet_of(kafka, topics, tmp_path, workers=0, partitions=1) as no_workers:
        yield no_workers


async def work_through(fleet: Fleet, sent: Sequence[Sent]) -> Log:
    """Send the records, then a good one; wait for its result, and read everything."""
    producer = AIOKafkaProducer(bootstrap_servers=fleet.bootstrap_servers, max_request_size=4 * 1024 * 1024)
    async with serving(plan_of(fleet.bootstrap_servers, fleet.prefix)), fleet.results() as seen:
        async with producer:
            for one in (*sent, Sent(value=body(id="the-next-record"))):
                await producer.send_and_wait(
                    fleet.topics.invoke_requests, one.value, key=one.key, headers=list(one.headers), partition=0
                )
        await seen.until_run("the-next-record")
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    assert one_line_each(log) + everything_committed(log) == []
    assert len(by_run(log)) == len(log.results), "a run has two results"
    assert by_run(log)["the-next-record"]["status"] == "completed"
    return log


def by_run(log: Log) -> dict[str, Json]:
    return {line.body["run_id"]: line.body for line in log.results}


def letters_by_offset(log: Log) -> dict[int, Line]:
    found = {int(line.headers["__dlq.errors.offset"]): line for line in log.dead_letters}
    assert len(found) == len(log.dead_letters), "a record has two dead letters"
    return found


async def test_every_bad_record_is_one_dead_letter_and_the_next_record_goes_on(fleet: Fleet) -> None:
    # The broker itself refuses what is larger than the topic takes; that bound has a test of its own.
    bad = {name: case for name, case in BAD_INPUT.items() if len(case[0] or b"") <= 1_000_000}
    log = await work_through(fleet, [Sent(value=value) for value, _, _ in bad.values()])
    letters = letters_by_offset(log)
    assert len(letters) == len(bad)
    for offset, (name, (value, code, detail)) in enumerate(bad.items()):
        letter = letters[offset]
        assert letter.value == (value or b""), name
        assert letter.key == "session"
        assert letter.headers["dlq-error-code"] == code, name
        assert letter.headers["__dlq.errors.message"] == detail, name
        assert letter.headers["__dlq.errors.topic"] == fleet.topics.invoke_requests
        assert letter.headers["__dlq.errors.partition"] == "0"
        assert letter.headers["__dlq.errors.group"] == fleet.group_id
        assert letter.headers["__dlq.errors.delivery.count"] == "1"
        assert letter.headers["agentstream-request"] == f"{fleet.topics.invoke_requests}/0/{offset}"
        assert len(letter.headers["traceparent"]) == 55
    assert log.committed[0][0] == log.ends[0]


async def test_a_bad_record_that_names_its_run_has_a_failed_result_as_well(fleet: Fleet) -> None:
    in_the_body = body(id="in-the-body", messages=[])
    log = await work_through(
        fleet,
        [Sent(value=in_the_body), Sent(value=b"not json", headers=[("ce_id", b"in-the-header")]), Sent(value=b"{")],
    )
    results = by_run(log)
    assert results["in-the-body"]["status"] == results["in-the-header"]["status"] == "failed"
    assert results["in-the-body"]["error"]["code"] == "schema_invalid"
    assert results["in-the-header"]["error"]["code"] == "malformed_json"
    assert results["in-the-body"]["attempt"] == 0
    assert len(letters_by_offset(log)) == 3


async def test_the_same_bad_record_twice_is_two_dead_letters_and_one_failed_result(fleet: Fleet) -> None:
    bad = Sent(value=body(id="once", messages=[]))
    log = await work_through(fleet, [bad, bad])
    assert len(log.results) == 2
    assert len(letters_by_offset(log)) == 2


async def test_what_this_worker_does_not_allow_is_refused_at_admission(fleet: Fleet) -> None:
    log = await work_through(fleet, [Sent(value=UNKNOWN), Sent(value=PI), Sent(value=ASKED_FOR_A_TOOL)])
    codes = [letter.headers["dlq-error-code"] for _, letter in sorted(letters_by_offset(log).items())]
    assert codes == ["unknown_harness", "harness_not_allowed", "tool_not_allowed"]
    assert {line.headers["dlq-error-stage"] for line in log.dead_letters} == {"admit"}


async def test_the_same_id_with_another_body_is_a_conflict_and_with_the_same_body_a_duplicate(fleet: Fleet) -> None:
    first = Sent(value=body(id="twice"))
    other = Sent(value=body(id="twice", metadata={"other": "body"}))
    log = await work_through(fleet, [first, first, other, first])
    assert len(log.results) == 2
    assert by_run(log)["twice"]["status"] == "completed"
    (letter,) = log.dead_letters
    assert letter.headers["dlq-error-code"] == "duplicate_conflict"
    assert letter.headers["__dlq.errors.offset"] == "2"


async def test_odd_but_harmless_records_are_accepted(fleet: Fleet) -> None:
    log = await work_through(
        fleet,
        [
            Sent(value=OK, headers=[("traceparent", b"00-garbage"), ("ce_time", b"\xff"), ("x", b"\x00")]),
            Sent(
                value=OK,
                headers=[("traceparent", b"nonsense"), ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01".encode())],
            ),
            Sent(value=body(from_the_future={"anything": [1]}), key=b"another key than the session"),
            Sent(value=body(session_id="a-session"), key=b"\xff\xfe"),
            Sent(value=OK, key=None),
            Sent(value=OK, key=b"\xff\xfe"),
        ],
    )
    assert log.dead_letters == []
    results = [line.body for line in log.results[:6]]
    assert {result["status"] for result in results} == {"completed"}
    ordered = sorted(log.results[:6], key=lambda line: int(line.headers["agentstream-request"].rsplit("/", 1)[1]))
    assert ordered[1].body["trace_id"] == "a" * 32
    assert ordered[2].body["session_id"] == "another key than the session"
    assert ordered[3].body["session_id"] == "a-session"
    assert ordered[4].body["session_id"] == ordered[4].body["run_id"]
    assert ordered[5].body["session_id"].startswith("key-")


async def test_a_value_of_the_size_limit_runs_and_one_byte_more_is_a_dead_letter(fleet: Fleet) -> None:
    # The broker's bound counts the batch's frame as well, so a smaller one is given to the worker's own check.
    limit = 100_000
    frame = len(body(messages=[{"role": "user", "content": ""}]))
    at = body(messages=[{"role": "user", "content": "x" * (limit - frame)}])
    above = body(messages=[{"role": "user", "content": "x" * (limit - frame + 1)}])
    plan = plan_of(fleet.bootstrap_servers, fleet.prefix)
    async with (
        serving(type(plan)(**{**vars(plan), "max_request_bytes": limit})),
        fleet.results() as seen,
        AIOKafkaProducer(bootstrap_servers=fleet.bootstrap_servers) as producer,
    ):
        for value in (at, above, OK):
            await producer.send_and_wait(fleet.topics.invoke_requests, value, key=b"s")
        await seen.until(2)
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    assert [line.body["status"] for line in log.results] == ["completed", "completed"]
    (letter,) = log.dead_letters
    assert letter.headers["dlq-error-code"] == "payload_too_large"
    assert letter.headers["__dlq.errors.offset"] == "1"


async def test_a_deadline_that_has_passed_is_a_failed_result_and_no_dead_letter(fleet: Fleet) -> None:
    log = await work_through(fleet, [Sent(value=body(id="late", deadline="2020-01-01T00:00:00Z"))])
    assert by_run(log)["late"]["error"]["code"] == "deadline_exceeded"
    assert log.dead_letters == []


async def test_a_result_that_is_too_large_becomes_a_small_failed_one(fleet: Fleet) -> None:
    big = body(id="big", parameters={"harness": {"kind": "scripted", "options": {"output_bytes": 1_500_000}}})
    harness = ScriptedHarness()
    generous = WorkerAgentConfig(harnesses={"scripted": harness}, default_harness="scripted")
    plan = plan_of(fleet.bootstrap_servers, fleet.prefix, config=generous, harnesses={"scripted": harness})
    async with (
        serving(plan),
        fleet.results() as seen,
        AIOKafkaProducer(bootstrap_servers=fleet.bootstrap_servers) as producer,
    ):
        await producer.send_and_wait(fleet.topics.invoke_requests, big, key=b"s")
        await producer.send_and_wait(fleet.topics.invoke_requests, body(id="next"), key=b"s")
        await seen.until(2)
    log = await read_log(fleet.bootstrap_servers, fleet.topics, fleet.group_id)
    results = by_run(log)
    assert results["big"]["error"]["code"] == "output_too_large"
    assert len(log.results[0].value) <= 16_384
    assert results["next"]["status"] == "completed"
    assert log.dead_letters[0].headers["dlq-error-code"] == "output_too_large"
