"""`agentstream dead-letters` as an operator types it, against a real Kafka."""

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tests.chaos.inside import plan_of, serving
from tests.integration.test_cli import Terminal
from tests.integration.test_redrive import config, refused, send, sent_again
from tests.support.cluster import Cluster
from tests.support.frames import Api
from tests.support.proxy import Hold, KafkaProxy
from tests.support.pty_session import on_a_terminal
from tests.support.waiting import patience


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path) -> Terminal:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
        "AGENTSTREAM_GROUP_ID": cluster.group_id,
        "AGENTSTREAM_HARNESSES": "scripted",
    }
    return Terminal(home=tmp_path, variables=variables)


async def test_from_the_list_to_one_of_them_and_to_a_file(terminal: Terminal, cluster: Cluster, tmp_path: Path) -> None:
    await send(cluster, b"\xff not json", sessions=1)
    await refused(cluster, "a", "b")
    listed = await terminal.type("dead-letters", "list", "--code", "tool_not_allowed", "--since", "1h")
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert [(row[2], row[4]) for row in rows] == [("tool_not_allowed", "a"), ("tool_not_allowed", "b")]
    lines = (await terminal.type("dead-letters", "list", "--json", "--max", "1")).out.splitlines()
    (first,) = (json.loads(line) for line in lines)
    assert (first["code"], first["request"]) == ("malformed_json", f"{cluster.topics.invoke_requests}/0/0")
    shown = await terminal.type("dead-letters", "show", rows[0][0])
    assert "code: tool_not_allowed" in shown.out
    assert "what to do: Leave the tool out" in shown.out
    assert '"id": "a"' in shown.out
    target = tmp_path / "letters.jsonl"
    exported = await terminal.type("dead-letters", "export", "--output", str(target))
    assert "3 written" in exported.err
    bad, one, _ = (json.loads(line) for line in target.read_text().splitlines())
    assert bad["value"] == {"base64": "/yBub3QganNvbg=="}
    assert json.loads(one["value"])["id"] == "a"
    assert ["mine", "1"] in one["headers"]
    none = await terminal.type("dead-letters", "list", "--until", "2020-01-01T00:00:00Z")
    assert (none.code, none.out) == (0, "")


async def test_on_a_terminal_each_is_told_whole_and_none_drives_it(terminal: Terminal, cluster: Cluster) -> None:
    value = json.dumps({"id": "a" * 36, "session_id": "[/x] \x1b]0;title\x07\tb", "tools": 1, "messages": []}).encode()
    await send(cluster, value, sessions=1)
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 1)
    command = (sys.executable, "-m", "agentstream.infra.cli", "dead-letters")
    for arguments in (("list",), ("show", "0/0")):
        async with on_a_terminal((*command, *arguments), terminal.home, terminal.environment) as shown:
            await shown.until("schema_invalid")
            await shown.until("a" * 36)
            assert await shown.ended() == 0
        assert "\x1b]" not in shown.shown, "a caller set the title of an operator's terminal"


async def test_a_control_character_that_made_a_record_unreadable_is_shown(terminal: Terminal, cluster: Cluster) -> None:
    await send(cluster, b'{"id": "\x1b[31mred"}', sessions=1)
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 1)
    shown = await terminal.type("dead-letters", "show", "0/0")
    assert shown.out.endswith('value:\n{"id": "\\x1b[31mred"}\n')


async def test_sent_again_by_hand_and_somewhere_else(terminal: Terminal, cluster: Cluster) -> None:
    await refused(cluster, "a", "b")
    dry = await terminal.type("dead-letters", "redrive", "--dry-run")
    assert dry.out.count("would send") == 2
    assert "nothing was sent: it would be 2 sent again of 2 looked at" in dry.out
    listed = json.loads((await terminal.type("dead-letters", "redrive", "--dry-run", "--json")).out)
    assert [(letter["run_id"], letter["at"], letter["not_sent"]) for letter in listed["letters"]] == [
        ("a", "0/0", None),
        ("b", "0/1", None),
    ]
    assert all(f"as run {letter['new_run_id']}\n" in dry.out for letter in listed["letters"])
    assert await sent_again(cluster) == []
    # Any topic will do, such as one that a person looks at first.
    elsewhere = await terminal.type("dead-letters", "redrive", "--to", cluster.topics.control, "--json")
    assert json.loads(elsewhere.out)["sent"] == 2
    assert await sent_again(cluster) == []
    place = ("--partition", "0", "--offset", "1", "--to", cluster.topics.control)
    assert "1 sent again" in (await terminal.type("dead-letters", "redrive", *place)).out
    again = await terminal.type("dead-letters", "redrive", *place)
    assert (again.code, "nothing to send" in again.err) == (0, True), "sent before is done, and not missing"
    sent = await terminal.type("dead-letters", "redrive", "--max", "1")
    assert (sent.code, sent.out) == (0, "1 sent again of 1 looked at\n")
    assert [line.headers["dlq-redrive-of"] for line in await sent_again(cluster)] == ["a"]


async def test_on_a_terminal_it_counts_up(terminal: Terminal, cluster: Cluster) -> None:
    await refused(cluster, *"abc")
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", "dead-letters", "redrive", "--batch", "1"),
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            cwd=terminal.home,
            env=terminal.environment,
        )
        async with patience():
            out, _ = await process.communicate()
        assert (process.returncode, out.decode()) == (0, "3 sent again of 3 looked at\n")
        said = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    places = [said.index(f"{count} sent again of {count} looked at") for count in (1, 2, 3)]
    assert places == sorted(places)


async def test_what_dies_too_often_ends_the_command_with_one(terminal: Terminal, cluster: Cluster) -> None:
    await send(cluster, b"{", sessions=1)
    await refused(cluster, "a")
    assert (await terminal.type("dead-letters", "redrive", "--max-redrives", "1")).code == 0
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix, config=config())):
        await cluster.tail.until(lambda: len(cluster.tail.dead_letters) == 4)
    done = await terminal.type("dead-letters", "redrive", "--max-redrives", "1")
    assert done.code == 1
    assert done.err.count("sent again 1 times already") == 2
    assert "2 could not be sent" in done.err


async def test_an_export_that_ends_early_leaves_the_file_of_the_one_before(
    terminal: Terminal, cluster: Cluster, tmp_path: Path
) -> None:
    # A slip in --partition, no broker or a Ctrl-C: yesterday's letters were gone before today's had been read.
    await refused(cluster, "a")
    target = tmp_path / "letters.jsonl"
    target.write_text("yesterday's\n")
    before = sorted(tmp_path.iterdir())
    export = ("dead-letters", "export", "--output", str(target))
    assert (await terminal.type(*export, "--partition", "99")).code == 2
    nowhere = Terminal(home=tmp_path, variables={**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert (await nowhere.type(*export)).code == 3
    async with KafkaProxy(cluster.bootstrap_servers) as proxy:
        fetching = proxy.on(Api.FETCH, do=Hold.ANSWER)
        behind = Terminal(
            home=tmp_path, variables={**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": proxy.bootstrap_servers}
        )
        exporting = await behind.start(*export)
        await fetching.hit()
        exporting.send_signal(signal.SIGINT)
        async with patience():
            await exporting.communicate()
        assert exporting.returncode == 130
    assert (target.read_text(), sorted(tmp_path.iterdir())) == ("yesterday's\n", before)
    assert "1 written" in (await terminal.type(*export)).err
    assert (json.loads(target.read_text())["run_id"], sorted(tmp_path.iterdir())) == ("a", before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--code", "nonsense"), "docs/errors.md"),
        (("list", "--since", "yesterday"), "--since"),
        (("list", "--since", "2h", "--until", "3h"), "--since 2h --until 3h: nothing lies between"),
        (("export", "--since", "1h", "--until", "1h"), "nothing lies between"),
        (("redrive", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"), "nothing lies between"),
        (("list", "--header", "x"), "name=value"),
        (("list", "--offset", "1"), "--partition"),
        (("list", "--partition", "7"), "the partitions 0 to 0"),
        (("show", "seven"), "PARTITION/OFFSET"),
        (("export", "--output", "no/such/dir/file"), "cannot be written"),
        (("redrive", "--name", "a b"), "--name"),
        (("redrive", "--partition", "7"), "the partitions 0 to 0"),
    ],
)
async def test_wrong_usage_is_one_line(terminal: Terminal, arguments: tuple[str, ...], words: str) -> None:
    done = await terminal.type("dead-letters", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert words in done.err


async def test_topics_that_do_not_exist_and_letters_that_are_not_there_are_one_line(terminal: Terminal) -> None:
    absent = await terminal.type("dead-letters", "show", "0/0")
    assert (absent.code, absent.err) == (1, "agentstream: no dead letter at 0/0\n")
    gone = await terminal.type("dead-letters", "redrive", "--partition", "0", "--offset", "7")
    assert (gone.code, gone.err.splitlines()[-1]) == (1, "agentstream: no dead letter at 0/7")
    nothing = await terminal.type("dead-letters", "redrive")
    assert (nothing.code, nothing.err.count("nothing to send: no dead letter is meant")) == (0, 1)
    nowhere = await terminal.type("dead-letters", "redrive", "--to", "nowhere")
    assert nowhere.code == 3
    assert nowhere.err.startswith("agentstream: no such topic: nowhere")
    assert nowhere.err.count("\n") == 1
