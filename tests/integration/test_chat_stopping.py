"""Ctrl-C, `/new` and leaving in `agentstream chat`, against a real Kafka that does not answer when it matters."""

import asyncio
import io
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentstream.infra.cli import cancellations
from agentstream.infra.cli.calling import Where
from agentstream.infra.cli.context import Cluster as NamedCluster
from agentstream.infra.cli.conversation import ChatManner, Conversation
from agentstream.infra.cli.screen import Screen
from agentstream.producers.connection import KafkaConnection
from tests.integration.test_cli import Terminal, scripted, scripted_worker, until_said
from tests.support.cluster import Cluster, cluster_of
from tests.support.frames import Api
from tests.support.proxy import Hold, KafkaProxy
from tests.support.waiting import eventually, patience


class Talk:
    """A conversation through a proxy, and what it says."""

    def __init__(self, cluster: Cluster, proxy: KafkaProxy) -> None:
        self._said = io.StringIO()
        connection = KafkaConnection(bootstrap_servers=proxy.bootstrap_servers, client_id="chat")
        where = Where(cluster=NamedCluster(connection=connection, topics=cluster.topics), max_request_bytes=100_000)
        screen = Screen(out=io.StringIO(), err=self._said)
        self.conversation = Conversation(where, {}, ChatManner(timeout=60, accept_gaps=False), screen)
        self._cluster = cluster

    @property
    def said(self) -> str:
        """All that was said so far."""
        return self._said.getvalue()

    async def until_said(self, words: str) -> None:
        await eventually(lambda: words in self.said, words)

    async def begun(self, text: str) -> asyncio.Task[bool]:
        """An answer that is asked for, as far as it comes without the brokers."""
        answer = asyncio.create_task(self.conversation.answer(text))
        await asyncio.sleep(0)
        return answer

    async def run_that_goes_on(self) -> str:
        """A run that nobody waits for; there is no worker. Its id."""
        answer = await self.begun("one")
        await eventually(lambda: "last run" in self.conversation.described(), "the first run is followed")
        assert await self.conversation.let_go() == "not waited for; your next message waits until it has ended"
        await asyncio.wait([answer])
        return self.conversation.described().split("last run ")[1].split()[0]

    async def on_the_log(self) -> tuple[int, int]:
        """How many requests there are, and how many to cancel one."""
        topics = self._cluster.topics
        return await self._cluster.end_of(topics.invoke_requests), await self._cluster.end_of(topics.control)


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    async with cluster_of(kafka, topics, partitions=1) as one:
        yield one


@pytest.fixture
async def proxy(kafka: str) -> AsyncIterator[KafkaProxy]:
    async with KafkaProxy(kafka) as one:
        yield one


@pytest.fixture
async def talk(cluster: Cluster, proxy: KafkaProxy) -> AsyncIterator[Talk]:
    one = Talk(cluster, proxy)
    try:
        await one.conversation.open(None)
        yield one
    finally:
        await one.conversation.close()


async def test_who_stops_a_message_that_waits_for_an_earlier_run_stops_no_other_and_it_is_not_sent(talk: Talk) -> None:
    # The earlier run was cancelled without a word, and then the message was sent.
    first = await talk.run_that_goes_on()
    for text in ("two", "three"):
        waiting = await talk.begun(text)
        await talk.conversation.stop()
        assert await waiting is False
        line = f"stopped: it was not sent; run {first} goes on, and your next message waits for it"
        assert talk.said.splitlines()[-1] == line
    assert await talk.on_the_log() == (1, 0)
    await talk.conversation.close()
    assert talk.said.splitlines()[-2:] == ["cancelling …", f"run {first} is cancelled"]
    assert await talk.on_the_log() == (1, 1)


async def test_who_stops_a_message_while_it_is_sent_has_its_run_cancelled(talk: Talk, proxy: KafkaProxy) -> None:
    acknowledgement = proxy.on(Api.PRODUCE, do=Hold.ANSWER)
    answer = await talk.begun("one")
    await acknowledgement.hit()
    await talk.conversation.stop()
    await talk.until_said("cancelling run ")
    acknowledgement.lift()
    assert await answer is False
    assert "stopped while it was being sent; run " in talk.said
    assert talk.said.endswith(" is cancelled\n")
    assert await talk.on_the_log() == (1, 1)


async def test_a_message_that_was_cut_off_while_it_was_sent_is_not_said_to_be_waited_for(
    talk: Talk, proxy: KafkaProxy
) -> None:
    # "your next message waits until it has ended" was said of what no broker had.
    request = proxy.on(Api.PRODUCE, do=Hold.REQUEST)
    answer = await talk.begun("one")
    await request.hit()
    await talk.conversation.stop()
    line = await talk.conversation.let_go()
    assert line.startswith("not waited for; it is not known whether the brokers have it: run ")
    await asyncio.wait([answer])
    leaving = asyncio.create_task(talk.conversation.close())
    await talk.until_said("cancelling …")
    assert "goes on or may go on" in talk.conversation.not_known_cancelled()[0]
    request.lift()
    await leaving
    assert talk.said.endswith(" is cancelled\n")
    assert (await talk.on_the_log())[1] == 1


async def test_a_new_session_waits_for_no_broker_and_the_run_of_the_old_one_is_cancelled(
    talk: Talk, proxy: KafkaProxy, cluster: Cluster
) -> None:
    # It took seconds, and what interrupted it did not keep the session from changing later.
    await talk.run_that_goes_on()
    old = talk.conversation.session.session_id
    request = proxy.on(Api.PRODUCE, do=Hold.REQUEST)
    async with patience():
        await talk.conversation.new()
    assert talk.conversation.session.session_id != old
    assert talk.said.endswith("the run of the session before is being cancelled\n")
    await request.hit()
    assert await talk.on_the_log() == (1, 0)
    request.lift()
    await cluster.until_end_of(cluster.topics.control, 1)


async def test_who_leaves_brokers_that_do_not_answer_is_told_which_run_goes_on(
    talk: Talk, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellations, "CANCEL_SECONDS", 0.1)
    run_id = await talk.run_that_goes_on()
    request = proxy.on(Api.PRODUCE, do=Hold.REQUEST)
    leaving = asyncio.create_task(talk.conversation.close())
    await talk.until_said(f"cancelling …\nrun {run_id} could not be cancelled and goes on: no answer\n")
    request.lift()
    await leaving


async def test_a_second_ctrl_c_leaves_a_pipe_at_once_and_says_what_goes_on(
    cluster: Cluster, proxy: KafkaProxy, tmp_path: Path
) -> None:
    worker = Terminal(home=tmp_path, variables=scripted_worker(cluster.bootstrap_servers, cluster.topics.prefix))
    away = {**worker.variables, "KAFKA_BOOTSTRAP_SERVERS": proxy.bootstrap_servers}
    async with worker.worker() as process:
        chat = await Terminal(home=tmp_path, variables=away).start("chat", *scripted(hang="before_first"))
        assert chat.stdin is not None
        chat.stdin.write(b"one\n")
        await until_said(process.stderr, "run started")
        request = proxy.on(Api.PRODUCE, do=Hold.REQUEST)
        chat.send_signal(signal.SIGINT)
        await until_said(chat.stderr, "cancelling …")
        await request.hit()
        chat.send_signal(signal.SIGINT)
        async with patience():
            _, err = await chat.communicate()
        request.lift()
    assert (chat.returncode, b"Traceback" in err) == (130, False), err
    assert b"goes on or may go on" in err
