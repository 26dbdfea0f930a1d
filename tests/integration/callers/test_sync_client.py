"""The client for scripts: what it does on its own loop, from threads that await nothing."""

import asyncio
import os
import signal
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError

import pytest

from agentstream import SyncAgentClient
from agentstream.consumers.client import RequestRefused, RunFailed, RunTimeout
from tests.chaos.inside import plan_of, serving
from tests.support.callers import kinds, playing
from tests.support.cluster import Cluster
from tests.support.waiting import eventually, patience


@pytest.fixture(autouse=True)
async def worker(cluster: Cluster) -> AsyncIterator[None]:
    """A worker that plays what requests say."""
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix)):
        yield


def opened(cluster: Cluster) -> SyncAgentClient:
    return SyncAgentClient(cluster.bootstrap_servers, topic_prefix=cluster.topics.prefix)


async def test_a_script_gets_answers_without_awaiting_anything(cluster: Cluster) -> None:
    def script() -> None:
        with opened(cluster) as client:
            assert client.invoke("hi", parameters=playing(text="one"), timeout=60, check=True).text == "one"
            with client.stream("hi", session_id="s1", parameters=playing(text="two words"), timeout=60) as run:
                assert kinds(run)[-1] == "run.ended"
                assert run.result().text == run.transcript.text == "two words"
                assert (run.session_id, run.result().trace_id) == ("s1", run.trace_id)
            submitted = client.submit("hi", parameters=playing(text="three"))
            assert client.wait(submitted, timeout=60).text == "three"
            with client.follow(submitted, timeout=60) as run:
                assert run.result().run_id == submitted.run_id
            with pytest.raises(RunFailed):
                client.invoke("hi", parameters=playing(error="provider_auth"), timeout=60, check=True)
            with pytest.raises(RequestRefused):
                client.invoke("hi", run_id="not a run id", timeout=60)

    await asyncio.to_thread(script)


async def test_a_session_keeps_its_history(cluster: Cluster) -> None:
    def script() -> None:
        with opened(cluster) as client, client.session("s1", parameters=playing(text="noted")) as session:
            session.send("My name is Ada.", timeout=60)
            run = session.send("What is my name?", timeout=60)
            assert run.result().status == "completed"
            said = [message.text for message in session.history]
            assert said == ["My name is Ada.", "noted", "What is my name?", "noted"]
            session.settle()
            assert [message.text for message in client.history("s1").messages] == said

    await asyncio.to_thread(script)


async def test_a_run_that_is_left_is_cancelled_and_one_can_be_asked_to_end(cluster: Cluster) -> None:
    def script() -> list[str]:
        hangs = playing(text="begun and never ended", hang="mid_text")
        with opened(cluster) as client:
            with client.stream("hi", parameters=hangs) as left:
                next(left)
            with client.stream("hi", parameters=hangs) as run:
                run.cancel("enough")
                assert run.result().status == "cancelled"
            with client.stream("hi", parameters=hangs) as run:
                client.cancel(run.run_id)
                assert run.result().status == "cancelled"
            with pytest.raises(RunTimeout):
                client.invoke("hi", parameters=hangs, timeout=0.5)
            return [left.run_id]

    (left,) = await asyncio.to_thread(script)
    assert (await cluster.tail.result(left)).status == "cancelled"


async def test_many_threads_share_one_client_and_closing_it_waits_for_none(cluster: Cluster) -> None:
    hangs = playing(text="begun and never ended", hang="mid_text")
    answers, ended = list[str](), list[str]()

    def call(client: SyncAgentClient, number: int) -> None:
        answers.append(client.invoke("hi", parameters=playing(text=f"answer {number}"), timeout=60).text)

    def wait(client: SyncAgentClient) -> None:
        try:
            client.invoke("hi", run_id="hangs", parameters=hangs)
        except CancelledError:
            ended.append("cancelled")

    def script() -> None:
        with opened(cluster) as client:
            threads = [threading.Thread(target=call, args=(client, number)) for number in range(20)]
            waiting = threading.Thread(target=wait, args=(client,))
            for thread in (*threads, waiting):
                thread.start()
            for thread in threads:
                thread.join()
            while not began.is_set():
                began.wait(1)
        waiting.join()

    began = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(script))
    await eventually(lambda: any(events.run_id == "hangs" for events in cluster.tail.events), "the run is under way")
    began.set()
    async with patience():
        await running
    assert sorted(answers) == sorted(f"answer {number}" for number in range(20))
    assert ended == ["cancelled"]


async def test_a_client_that_is_not_open_says_so(cluster: Cluster) -> None:
    client = opened(cluster)
    with pytest.raises(RuntimeError, match="inside `with"):
        client.invoke("hi")


async def test_ctrl_c_ends_a_wait_and_the_run_with_it(cluster: Cluster) -> None:
    script = textwrap.dedent(f"""
        from agentstream import SyncAgentClient
        hangs = {{"harness": {{"kind": "scripted", "options": {{"text": "begun and stuck", "hang": "mid_text"}}}}}}
        with SyncAgentClient({cluster.bootstrap_servers!r}, topic_prefix={cluster.topics.prefix!r}) as client:
            with client.stream("hi", run_id="stuck", parameters=hangs) as run:
                for event in run:
                    print(event.type, flush=True)
    """)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    async with patience():
        while b"part.delta" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert said.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert (await cluster.tail.result("stuck")).status == "cancelled"
