"""`agentstream show`: a process of its own against a real Kafka, and a worker beside it."""

import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.chaos.audit import Json
from tests.integration.cli_fixtures import scripted_terminal
from tests.integration.test_cli import Terminal, scripted
from tests.integration.test_cli_where import until_state
from tests.support.waiting import patience

TOOLS = '[{"name":"bash","arguments":{"command":"ls -l"},"result":"a file"},{"name":"read","is_error":true}]'


@pytest.fixture
async def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    return await scripted_terminal(kafka, topics, tmp_path)


async def ask(terminal: Terminal, *more: str, **options: object) -> str:
    """Send a request of session s; gives its run id."""
    sent = await terminal.type("invoke", "hi", "--no-wait", "--json", "--session", "s", *more, *scripted(**options))
    assert sent.code == 0, sent.err
    return str(json.loads(sent.out)["submitted"]["run_id"])


async def show(terminal: Terminal, run_id: str) -> Json:
    done = await terminal.type("show", run_id, "--json")
    assert done.code == 0, done.err
    shown: Json = json.loads(done.out)
    return shown


async def test_a_run_that_has_ended_is_shown_with_its_attempts_its_tools_and_where_all_lies(
    terminal: Terminal, topics: str
) -> None:
    run_id = await ask(
        terminal,
        "--set",
        "retry.base_ms=10",
        "--set",
        "metadata.who=me",
        text="the answer",
        tools=TOOLS,
        fail_attempts=1,
    )
    async with terminal.worker():
        await until_state(terminal, run_id, "finished")
    found = await show(terminal, run_id)
    assert (found["state"], found["status"], found["session_id"]) == ("finished", "completed", "s")
    assert found["request"]["metadata"] == {"who": "me"}
    assert found["positions"]["request"] == {"topic": f"{topics}invoke-requests", **_at(found, "request")}
    assert found["positions"]["result"] == {"topic": f"{topics}assistant-messages", **_at(found, "result")}
    assert found["positions"]["request"]["partition"] == found["positions"]["result"]["partition"]
    first, second = found["attempts"]
    assert (first["attempt"], first["voided"], first["status"]) == (1, True, "retrying")
    assert first["error"]["code"] == "provider_error"
    assert (second["attempt"], second["voided"], second["status"], second["missing"]) == (2, False, "completed", 0)
    assert second["attempt_id"] == found["result"]["attempt_id"]
    assert sum(second["events"].values()) == found["result"]["last_seq"] + 1
    assert second["events"]["tool.ended"] == 2
    assert [(tool["name"], tool["arguments"], tool["is_error"]) for tool in second["tools"]] == [
        ("bash", {"command": "ls -l"}, False),
        ("read", {}, True),
    ]
    assert found["result"]["trace_id"] == found["trace_id"]
    assert found["notes"] == []
    said = (await terminal.type("show", run_id)).out.splitlines()
    assert said[0] == f"{run_id}: it has ended: completed"
    assert '  → bash {"command": "ls -l"}' in said
    assert any(line.startswith("attempt\t") and "void: another one counts" in line for line in said)
    assert said[-1] == "  the answer"


def _at(found: Json, name: str) -> Json:
    return {key: found["where"][name][key] for key in ("partition", "offset")}


async def test_a_run_that_is_under_way_shows_how_far_it_is_and_who_has_it(terminal: Terminal) -> None:
    run_id = await ask(terminal, text="some words", hang="mid_text")
    waits = await ask(terminal, text="later")
    async with terminal.worker():
        await until_state(terminal, run_id, "running")
        async with patience():
            while not (found := await show(terminal, run_id))["messages"]:
                pass
        assert "result" not in found
        assert found["where"]["owner"]
        (attempt,) = found["attempts"]
        assert (attempt["status"], attempt["voided"]) == (None, False)
        said = (await terminal.type("show", run_id)).out
        assert f"{run_id}: it runs\n" in said
        assert "so far\n  some" in said
        assert f"behind {run_id}" in (await terminal.type("show", waits)).out.splitlines()[0]


async def test_a_record_that_was_refused_is_shown_with_why(terminal: Terminal, topics: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=terminal.variables["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
        await producer.send_and_wait(f"{topics}invoke-requests", b'{"id":"bad-1","messages":[]}', partition=1)
    async with terminal.worker():
        await until_state(terminal, "bad-1", "finished")
    found = await show(terminal, "bad-1")
    assert (found["request"]["problem"]["code"], found["dead_letter"]["code"]) == ("schema_invalid", "schema_invalid")
    assert found["positions"]["dead_letter"]["topic"] == f"{topics}dead-letters"
    assert found["result"]["error"]["code"] == "schema_invalid"
    assert found["attempts"] == []
    assert "dead letter\t" in (await terminal.type("show", "bad-1")).out


async def test_what_retention_took_away_is_said_and_the_rest_is_shown(terminal: Terminal, topics: str) -> None:
    run_id = await ask(terminal, text="the answer")
    async with terminal.worker():
        where = await until_state(terminal, run_id, "finished")
        # One of the same session behind it: the log goes on, and what lies there now is another's.
        await until_state(terminal, await ask(terminal, text="another answer"), "finished")
    partition, servers = where["request"]["partition"], terminal.variables["KAFKA_BOOTSTRAP_SERVERS"]
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        first_request = TopicPartition(f"{topics}invoke-requests", partition)
        all_deltas = TopicPartition(f"{topics}stream-deltas", partition)
        await admin.delete_records({first_request: RecordsToDelete(where["request"]["offset"] + 1)})
        await admin.delete_records({all_deltas: RecordsToDelete(-1)})
    finally:
        await admin.close()
    done = await terminal.type("show", run_id)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "  the answer"
    assert "  no longer on the log" in done.out
    assert f"its request is no longer on the log: retention took {topics}invoke-requests/{partition}/0" in done.err
    assert "its events are no longer on the log" in done.err


async def test_a_run_that_is_nowhere_is_one_line_and_one_and_no_broker_is_three(terminal: Terminal) -> None:
    nowhere = await terminal.type("show", "nobody")
    assert (nowhere.code, nowhere.out.count("\n"), nowhere.err) == (1, 1, "")
    assert nowhere.out.startswith("nobody: not found on the log")
    terminal.variables = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    gone = await terminal.type("show", "nobody")
    assert (gone.code, gone.out, gone.err.count("\n")) == (3, "", 1), gone.err
    assert (await terminal.type("show")).code == 2
    for command in ("show", "where"):
        for argument, why in (("n" * 300, "is no run id"), ("no id \udcff", "is not UTF-8 text")):
            wrong = await terminal.type(command, argument)
            assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1), wrong.err
            assert why in wrong.err
