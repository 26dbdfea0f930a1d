"""The worker's HTTP port: a real worker on a real Kafka, as a probe and a person see it."""

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from tests.integration.test_cli import Terminal, scripted, scripted_worker, until_said
from tests.support.waiting import patience


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
async def terminal(kafka: str, topics: str, tmp_path: Path) -> Terminal:
    variables = {
        **scripted_worker(kafka, topics),
        "AGENTSTREAM_GRACE_SECONDS": "60",
        "AGENTSTREAM_HTTP_PORT": str(free_port()),
    }
    one = Terminal(home=tmp_path, variables=variables)
    assert (await one.type("topics", "apply", "--partitions", "2")).code == 0
    return one


async def test_a_worker_says_that_it_lives_is_ready_and_what_it_does(terminal: Terminal) -> None:
    at = f"http://127.0.0.1:{terminal.variables['AGENTSTREAM_HTTP_PORT']}"
    async with terminal.worker() as worker, httpx.AsyncClient(base_url=at) as probe:
        assert (await probe.get("/livez")).status_code == 200
        async with patience():
            while (ready := await probe.get("/readyz")).status_code != 200:
                assert ready.json()["reason"]
        await terminal.type("invoke", "hi", "--no-wait", "--session", "s", *scripted(hang="before_first"))
        await terminal.type("invoke", "hi", "--no-wait", "--session", "s", *scripted(text="later"))
        await until_said(worker.stderr, "run started")
        async with patience():
            while True:
                status = (await probe.get("/status")).json()
                (busy,) = [one for one in status["partitions"] if one["runs"]] or [{"waiting": 0}]
                if busy["waiting"] == 1:
                    break
        assert [one["partition"] for one in status["partitions"]] == [0, 1]
        assert all(one["claim"] > 0 and one["last_commit_s_ago"] is not None for one in status["partitions"])
        (run,) = busy["runs"]
        assert run["session_id"] == "s"
        assert run["age_s"] >= 0
        assert (busy["open"], busy["lag"], busy["sessions"], busy["finished_below"]) == (2, 2, 1, 0)
        assert status["intake"]["held"] == 2
        assert status["control"] == {"tombstones": 0, "forgotten": 0, "ignored": 0}
        assert (status["stuck"], status["unready"], status["brokers"]) == (None, None, None)
        assert status["harnesses"] == {"scripted": None}
        worker.terminate()
        async with patience():
            while (leaving := await probe.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.05)
        assert leaving.json()["reason"] == "the worker is stopping"
        assert (await probe.get("/livez")).status_code == 200


async def test_dev_answers_there_too(terminal: Terminal) -> None:
    dev = await terminal.start("dev")
    try:
        await until_said(dev.stdout, "Ctrl-C stops it.")
        async with httpx.AsyncClient() as probe:
            answer = await probe.get(f"http://127.0.0.1:{terminal.variables['AGENTSTREAM_HTTP_PORT']}/livez")
        assert answer.status_code == 200
    finally:
        dev.kill()
        await dev.communicate()


async def test_a_port_that_is_taken_is_one_line_and_no_worker(terminal: Terminal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(terminal.variables["AGENTSTREAM_HTTP_PORT"])))
        taken.listen()
        done = await terminal.type("worker")
    assert done.code == 2
    assert "AGENTSTREAM_HTTP_PORT: cannot listen on" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
