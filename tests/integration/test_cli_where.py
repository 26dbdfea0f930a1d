"""`agentstream where` and `cancel`, and Ctrl-C in `invoke`: processes of their own against a real Kafka."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.chaos.audit import Json
from tests.integration.cli_fixtures import scripted_terminal
from tests.integration.test_cli import Terminal, scripted, until_said
from tests.support.frames import Api
from tests.support.proxy import Hold, KafkaProxy
from tests.support.waiting import patience


@pytest.fixture
async def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    return await scripted_terminal(kafka, topics, tmp_path)


async def ask(terminal: Terminal, **options: object) -> str:
    """Send a request of session s; gives its run id."""
    sent = await terminal.type("invoke", "hi", "--no-wait", "--json", "--session", "s", *scripted(**options))
    return str(json.loads(sent.out)["submitted"]["run_id"])


async def where(terminal: Terminal, run_id: str) -> Json:
    done = await terminal.type("where", run_id, "--json")
    assert done.out, done.err
    found: Json = json.loads(done.out)["where"]
    assert done.code == (1 if found["state"] == "unknown" else 0), done.err
    return found


async def until_state(terminal: Terminal, run_id: str, state: str) -> Json:
    async with patience():
        while (found := await where(terminal, run_id))["state"] != state:
            pass
    return found


async def test_a_callers_name_of_a_session_is_one_cell_of_a_line_and_drives_no_terminal(terminal: Terminal) -> None:
    sent = await terminal.type("invoke", "hi", "--no-wait", "--json", "--session", "a\tb\n\x1b[31mred")
    run_id = str(json.loads(sent.out)["submitted"]["run_id"])
    for command in ("where", "show"):
        shown = await terminal.type(command, run_id)
        assert "\x1b" not in shown.out
        (line,) = (each for each in shown.out.splitlines() if each.startswith("session"))
        assert line.split("\t")[1:] == ["a b [31mred"]


async def test_a_run_is_found_wherever_it_is(terminal: Terminal, topics: str) -> None:
    first = await ask(terminal, text="some words", hang="mid_text")
    second = await ask(terminal, text="later")
    unread = await where(terminal, second)
    assert (unread["state"], unread["behind"], unread["ahead"]) == ("unread", first, 1)
    async with terminal.worker():
        running = await until_state(terminal, first, "running")
        assert running["attempt"] == 1
        assert running["last_event"] in ("run.started", "part.started", "part.delta", "run.alive")
        waiting = await until_state(terminal, second, "waiting")
        assert (waiting["behind"], waiting["ahead"]) == (first, 1)
        assert waiting["claim"] == running["claim"]
        # That it waits is told by an event; no commit comes while nothing begins or ends, so the offset does not tell.
        third = await ask(terminal, text="latest")
        async with patience():
            while (queued := await where(terminal, third)).get("last_event") != "run.queued":
                pass
        assert (queued["state"], queued["ahead"]) == ("waiting", 2)
        shown = await terminal.type("where", second)
        assert shown.out.startswith(f"{second}: it waits in its worker, behind {first} (1 of its session before it)\n")
        cancelled = await terminal.type("cancel", first, "--reason", "hangs", "--wait", "--json")
        assert cancelled.code == 0, cancelled.err
        result = json.loads(cancelled.out)["result"]
        assert result["status"] == "cancelled"
        assert result["error"]["detail"].endswith(": hangs")
        ended = await until_state(terminal, second, "finished")
        assert ended["status"] == "completed"
        assert ended["result"]["topic"] == f"{topics}assistant-messages"
        # One that has ended is not changed, and whoever waits is told how it ended.
        again = await terminal.type("cancel", second, "--wait")
        assert (again.code, again.out) == (1, f"{second}\tcompleted\n")
        assert "had ended before" in again.err
        late = await terminal.type("cancel", second)
        assert (late.code, late.out) == (1, f"{second}: it has ended: completed\n")
        twice = await terminal.type("cancel", first)
        assert (twice.code, twice.out) == (0, f"{first}: it has ended: cancelled\n")


async def test_whoever_does_not_wait_for_a_cancelled_run_is_told_where_it_is(terminal: Terminal) -> None:
    run_id = await ask(terminal, text="words")
    asked = await terminal.type("cancel", run_id)
    assert (asked.code, asked.err) == (0, "")
    how = f"no worker has read it yet; `agentstream where {run_id}` says how it ends"
    assert asked.out == f"asked to cancel {run_id}: {how}\n"
    told = await terminal.type("cancel", run_id, "--json")
    assert (told.code, json.loads(told.out)["where"]["state"]) == (0, "unread")
    async with terminal.worker():
        assert (await until_state(terminal, run_id, "finished"))["status"] == "cancelled"


async def test_a_run_that_nobody_sent_is_not_found_and_why_that_may_be_is_said(terminal: Terminal) -> None:
    nowhere = await terminal.type("where", "nobody")
    assert nowhere.code == 1
    assert "not found on the log" in nowhere.out
    assert "retention" in nowhere.out
    early = await terminal.type("cancel", "nobody", "--wait", "--timeout", "1")
    assert (early.code, "it will be cancelled if it comes" in early.err) == (4, True)
    unknown = await terminal.type("cancel", "nobody")
    assert (unknown.code, unknown.out) == (1, "asked to cancel nobody\n")
    assert unknown.err == "nobody is not on the log; it will be cancelled if it comes\n"
    refused = await terminal.type("cancel", "no id")
    elsewhere = Terminal(home=terminal.home, variables={**terminal.variables, "AGENTSTREAM_TOPIC_PREFIX": "elsewhere."})
    untold = await elsewhere.type("cancel", "nobody")
    assert (untold.code, untold.err.count("\n")) == (3, 1)
    assert "elsewhere.control" in untold.err
    assert "`agentstream topics apply`" in untold.err
    assert (refused.code, refused.err.count("\n")) == (2, 1)


async def test_a_record_that_was_refused_is_found_with_its_dead_letter(terminal: Terminal, topics: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=terminal.variables["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
        await producer.send_and_wait(f"{topics}invoke-requests", b'{"id":"bad-1","messages":[]}', partition=1)
    async with terminal.worker():
        found = await until_state(terminal, "bad-1", "finished")
    assert (found["status"], found["error"]) == ("failed", "schema_invalid")
    assert (found["dead_letter"]["topic"], found["dead_letter"]["partition"]) == (f"{topics}dead-letters", 1)


async def test_ctrl_c_in_invoke_cancels_the_run_and_says_so(terminal: Terminal) -> None:
    async with terminal.worker() as worker:
        asking = await terminal.start("invoke", "hi", *scripted(text="some words", hang="mid_text"))
        await until_said(worker.stderr, "run started")
        asking.send_signal(signal.SIGINT)
        async with patience():
            _, err = await asking.communicate()
        assert asking.returncode == 130
        said = err.decode().splitlines()
        assert len(said) >= 1, err
        assert said[-1].startswith("interrupted; run ")
        assert said[-1].endswith(" is cancelled")
        run_id = said[-1].split()[2]
        found = await until_state(terminal, run_id, "finished")
        assert (found["status"], found["error"]) == ("cancelled", "cancelled")


async def test_ctrl_c_while_invoke_sends_its_request_cancels_the_run_that_nobody_has_seen(
    terminal: Terminal, kafka: str
) -> None:
    async with KafkaProxy(kafka) as proxy:
        through = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": proxy.bootstrap_servers}
        answers = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
        asking = await replace(terminal, variables=through).start("invoke", "hi", *scripted(hang="mid_text"))
        await answers.hit()
        asking.send_signal(signal.SIGINT)
        answers.lift()
        async with patience():
            _, err = await asking.communicate()
    assert asking.returncode == 130
    said = err.decode().splitlines()[-1]
    assert said.startswith("interrupted; run ")
    assert said.endswith(" is cancelled")
    async with terminal.worker():
        found = await until_state(terminal, said.split()[2], "finished")
    assert found["status"] == "cancelled"


async def test_what_can_be_no_run_id_is_told_in_the_same_words_by_all_that_take_one(terminal: Terminal) -> None:
    # `cancel ''` said "String should match pattern …", once it had asked Kafka.
    for command in ("where", "cancel", "show"):
        done = await terminal.type(command, "")
        said = "agentstream: '' is no run id: those are 1 to 128 of A-Z, a-z, 0-9 and ._:-\n"
        assert (done.code, done.err) == (2, said), command
