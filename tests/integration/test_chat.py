"""`agentstream chat`, from a pipe and on a real terminal, and `invoke --continue`, against a real Kafka."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentstream.infra.cli.calling import Where
from agentstream.infra.cli.context import Cluster as NamedCluster
from agentstream.infra.cli.conversation import ChatManner, Conversation
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import NO_BROKER
from agentstream.producers.connection import KafkaConnection
from tests.conftest import PrivateKafka
from tests.integration.test_cli import Terminal, scripted, scripted_worker, until_said
from tests.support.asked import asked_with
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api
from tests.support.proxy import Hold, KafkaProxy
from tests.support.pty_session import CTRL_C, CTRL_D, ENTER, UP, PtySession, on_a_terminal
from tests.support.waiting import eventually, patience


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    """Give fresh topics with one partition."""
    async with cluster_of(kafka, topics, partitions=1) as one:
        yield one


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path) -> Terminal:
    return Terminal(home=tmp_path, variables=scripted_worker(cluster.bootstrap_servers, cluster.topics.prefix))


def chatting(terminal: Terminal, *arguments: str) -> AbstractAsyncContextManager[PtySession]:
    command = (sys.executable, "-m", "agentstream.infra.cli", "chat", *arguments)
    return on_a_terminal(command, terminal.home, terminal.environment)


async def test_lines_from_a_pipe_are_a_conversation(terminal: Terminal, cluster: Cluster) -> None:
    lines = ["one", "", "/session", "two \\", "lines", "/new", "three", "/nonsense", "/exit", "never said"]
    async with terminal.worker():
        done = await terminal.type("chat", "--session", "s", "--harness", "scripted", stdin="\n".join(lines))
    assert (done.code, done.out) == (1, "You said: one\nYou said: two \nlines\nYou said: three\n"), done.err
    assert "session s · 2 messages · last run " in done.err
    new = next(line for line in done.err.splitlines() if line.endswith(" · 0 messages"))
    assert "last run" not in new, "it was of another session"
    # A question such as `/etc/hosts: what is it for?` was left out, and the exit code said that all was answered.
    assert "/nonsense: there is no such command; /help lists them" in done.err
    assert await asked_with(cluster) == [
        ["user: one"],
        ["user: one", "assistant: You said: one", "user: two \nlines"],
        ["user: three"],
    ]


async def test_an_answer_that_fails_is_said_and_the_next_line_goes_on(terminal: Terminal, cluster: Cluster) -> None:
    async with terminal.worker():
        failed = await terminal.type("chat", *scripted(error="max_turns", text=""), stdin="one\ntwo\n")
    assert failed.code == 1
    assert failed.err.count("max_turns") == 2
    assert await asked_with(cluster) == [["user: one"], ["user: two"]]


async def test_from_a_pipe_nobody_is_told_what_to_type_after_a_request_that_is_too_large(
    terminal: Terminal, cluster: Cluster
) -> None:
    small = Terminal(home=terminal.home, variables={**terminal.variables, "AGENTSTREAM_MAX_REQUEST_BYTES": "1024"})
    done = await small.type("chat", "--harness", "scripted", stdin="x" * 2_000)
    assert (done.code, done.out) == (1, "")
    assert "at most 1024 are allowed" in done.err
    assert "/new" not in done.err
    async with chatting(small, "--harness", "scripted") as chat:
        await chat.until("> ")
        chat.press(f"{'x' * 2_000}{ENTER}")
        await chat.until("/new begins a conversation without what was said here")
        chat.press(CTRL_D)


async def test_on_a_terminal_words_stream_and_ctrl_c_stops_the_answer_and_stays(
    terminal: Terminal, cluster: Cluster
) -> None:
    async with (
        terminal.worker() as worker,
        chatting(terminal, "--session", "s", *scripted(text="some words that never end", hang="mid_text")) as chat,
    ):
        await chat.until("/help says what can be typed")
        await chat.until("> ")
        chat.press(f"hello{ENTER}")
        await chat.until("some words ")
        chat.press(CTRL_C)
        await chat.until("stopped")
        await chat.until("> ")
        # Ctrl-C at the prompt forgets the line, and nothing is sent.
        chat.press("never said")
        await chat.until("never said")
        await chat.interrupted("Ctrl-D or /exit leaves")
        await chat.until("> ")
        chat.press(f"/session{ENTER}")
        await chat.until("session s · 2 messages · last run ")
        await chat.until("> ")
        # The line before is at hand, as readline keeps it.
        chat.press(f"{UP}{UP}{ENTER}")
        await until_said(worker.stderr, "run ended")
        await chat.until("some words ")
        chat.press(CTRL_C)
        await chat.until("stopped")
        await chat.until("> ")
        chat.press(CTRL_D)
        await chat.until("agentstream chat --continue s")
        assert await chat.ended() == 0
    said = (await asked_with(cluster))[-1]
    assert said[0] == said[-1] == "user: hello"
    assert said[1].startswith("assistant: some words")
    assert len(said) == 3
    assert [result.status for result in cluster.tail.results] == ["cancelled", "cancelled"]


async def test_a_chat_goes_on_with_a_session_that_was_left(terminal: Terminal, cluster: Cluster) -> None:
    async with terminal.worker():
        assert (await terminal.type("chat", "--session", "s", "--harness", "scripted", stdin="one\ntwo\n")).code == 0
        async with chatting(terminal, "--continue", "s", "--harness", "scripted") as chat:
            await chat.until("session s goes on after 4 messages")
            await chat.until("it said last: You said: two")
            await chat.until("> ")
            chat.press(f"three{ENTER}")
            await chat.until("You said: three")
            await chat.until("> ")
            chat.press(f"/exit{ENTER}")
            assert await chat.ended() == 0
        once = await terminal.type("invoke", "--continue", "s", "four", "--harness", "scripted")
        assert (once.code, once.out) == (0, "You said: four\n")
        assert "session s goes on after 6 messages" in once.err
    whole = [words for text in ("one", "two", "three") for words in (f"user: {text}", f"assistant: You said: {text}")]
    assert (await asked_with(cluster))[-2:] == [[*whole[:4], "user: three"], [*whole, "user: four"]]


async def test_a_session_that_cannot_be_continued_is_one_line_with_what_to_do(
    terminal: Terminal, cluster: Cluster
) -> None:
    for command in (("invoke", "hi"), ("chat",)):
        unknown = await terminal.type(*command, "--continue", "nobody")
        assert (unknown.code, unknown.err.count("\n")) == (1, 1), unknown.err
        assert "session nobody is not on the log" in unknown.err
    both = await terminal.type("invoke", "hi", "--continue", "s", "--session", "t")
    assert (both.code, both.err.count("\n")) == (2, 1)
    async with terminal.worker():
        for text in ("one", "two", "three"):
            asked = await terminal.type("invoke", text, "--session", "s", "--harness", "scripted")
            assert asked.code == 0
        await cluster.expire_requests(2)
        lost = await terminal.type("invoke", "four", "--continue", "s")
        assert (lost.code, lost.err.count("\n")) == (1, 1), lost.err
        assert "session s: 2 turns of it are no longer on the log" in lost.err
        assert "--accept-gaps" in lost.err
        accepted = await terminal.type("invoke", "four", "--continue", "s", "--accept-gaps", "--harness", "scripted")
    assert (accepted.code, accepted.out) == (0, "You said: four\n")
    assert "without 2 of its turns" in accepted.err
    assert (await asked_with(cluster))[-1] == ["user: three", "assistant: You said: three", "user: four"]


async def test_what_is_asked_may_come_from_stdin_whenever_it_is_no_terminal(
    terminal: Terminal, cluster: Cluster
) -> None:
    async with terminal.worker():
        piped = await terminal.type("invoke", "--harness", "scripted", stdin="from a pipe")
        assert (piped.code, piped.out) == (0, "You said: from a pipe\n")
    for stdin, words_ in ((" \n", "there is nothing to ask"), ("\udcff", "stdin is not UTF-8 text (at byte 0)")):
        process = await terminal.start("invoke", "-")
        async with patience():
            _, err = await process.communicate(stdin.encode(errors="surrogateescape"))
        assert (process.returncode, err.decode().count("\n")) == (2, 1)
        assert words_ in err.decode()
    command = (sys.executable, "-m", "agentstream.infra.cli", "invoke")
    async with on_a_terminal(command, terminal.home, terminal.environment) as typed:
        await typed.until("say what to ask: agentstream invoke 'Hello', or pipe it in")
        assert await typed.ended() == 2


async def test_a_second_ctrl_c_does_not_wait_for_a_worker_that_does_not_answer(
    terminal: Terminal, cluster: Cluster
) -> None:
    async with (
        terminal.worker() as worker,
        chatting(terminal, *scripted(text="some words that never end", hang="mid_text")) as chat,
    ):
        await chat.until("> ")
        chat.press(f"hello{ENTER}")
        await chat.until("some words ")
        worker.send_signal(signal.SIGSTOP)
        chat.press(CTRL_C)
        # Sent at once, the two would be one: the first is taken once the request to cancel is on the log.
        await cluster.until_end_of(cluster.topics.control, 1)
        chat.press(CTRL_C)
        await chat.until("not waited for; your next message waits until it has ended")
        await chat.until("> ")
        worker.send_signal(signal.SIGCONT)
        chat.press(f"/new{ENTER}")
        await chat.until("0 messages")
        await chat.until("> ")
        chat.press(CTRL_D)
        assert await chat.ended() == 0
        await cluster.tail.until(lambda: [each.status for each in cluster.tail.results] == ["cancelled"])


async def test_an_answer_that_came_too_late_is_part_of_what_the_next_message_is_asked_with(
    terminal: Terminal, cluster: Cluster
) -> None:
    late = scripted(text="some words that never end", hang="mid_text")
    async with terminal.worker(), chatting(terminal, "--timeout", "3", *late) as chat:
        await chat.until("> ")
        chat.press(f"a{ENTER}")
        await chat.until("it goes on, and your next message waits for it")
        await chat.until("> ")
        (run_id,) = {record.run_id for record in cluster.tail.events}
        assert (await terminal.type("cancel", run_id)).code == 0
        await cluster.tail.result(run_id)
        chat.press(f"b{ENTER}")
        await cluster.until_end_of(cluster.topics.invoke_requests, 2)
        chat.press(CTRL_C)
        await chat.until("> ")
        chat.press(CTRL_D)
        assert await chat.ended() == 0
    (_, second) = await asked_with(cluster)
    assert (second[0], second[1].startswith("assistant: some words"), second[2]) == ("user: a", True, "user: b")


async def test_ctrl_c_ends_a_chat_that_reads_a_pipe_and_cancels_what_is_under_way(
    terminal: Terminal, cluster: Cluster
) -> None:
    async with terminal.worker() as worker:
        chat = await terminal.start("chat", *scripted(hang="before_first"))
        assert chat.stdin is not None
        chat.stdin.write(b"one\n")
        await until_said(worker.stderr, "run started")
        chat.send_signal(signal.SIGINT)
        async with patience():
            _, err = await chat.communicate()
        assert (chat.returncode, b"Traceback" in err) == (130, False), err
        await cluster.tail.until(lambda: [each.status for each in cluster.tail.results] == ["cancelled"])


async def test_who_leaves_a_chat_while_it_sends_a_request_has_its_run_cancelled(kafka: str, cluster: Cluster) -> None:
    # The worker had the request before the chat had its acknowledgement: the client was closed, and the run went on.
    async with KafkaProxy(kafka) as proxy:
        connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="chat")
        where = Where(cluster=NamedCluster(connection=connection, topics=cluster.topics), max_request_bytes=100_000)
        conversation = Conversation(where, {}, ChatManner(timeout=60, accept_gaps=False), Screen())
        try:
            await conversation.open(None)
            acknowledgement = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
            answer = asyncio.create_task(conversation.answer("one"))
            await acknowledgement.hit()
        finally:
            leaving = asyncio.create_task(conversation.close())
            await eventually(lambda: answer.cancelling() > 0, "it is no longer waited for")
            acknowledgement.lift()
            await leaving
    assert answer.cancelled()
    assert (await cluster.end_of(cluster.topics.invoke_requests), await cluster.end_of(cluster.topics.control)) == (
        1,
        1,
    )


async def test_a_broker_that_dies_between_two_turns_is_said_and_the_turn_is_asked_when_it_is_back(
    private_kafka: PrivateKafka, terminal: Terminal
) -> None:
    # Sending waits for the brokers, and until the request was there nobody listened for their silence.
    broker = await private_kafka()
    terminal.variables = {**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    assert (await terminal.type("topics", "apply", "--partitions", "1")).code == 0
    async with terminal.worker(), chatting(terminal, "--harness", "scripted") as chat:
        await chat.until("> ")
        chat.press(f"one{ENTER}")
        await chat.until("You said: one")
        await chat.until("> ")
        await broker.kill()
        chat.press(f"two{ENTER}")
        await chat.until(NO_BROKER)
        await broker.restart()
        await chat.until("You said: two")
        chat.press(CTRL_D)


async def test_a_chat_without_a_broker_is_one_line(terminal: Terminal) -> None:
    nowhere = Terminal(home=terminal.home, variables={**terminal.variables, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    done = await nowhere.type("chat", stdin="hello\n")
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
