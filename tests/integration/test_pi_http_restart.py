"""`agentstream sidecar` as a process: its signals and refusals, and a kill -9 under the load of a worker."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.sidecar_process import LISTENING
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.audit import read_log, violations
from tests.chaos.fleet import Fleet
from tests.integration.pi_fixtures import KEY, eventually, marked
from tests.integration.pi_http_fixtures import TOKEN

COMMAND = (sys.executable, "-m", "agentstream.infra.cli")
REQUESTS = 8


def variables(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTSTREAM_", "KAFKA_"))}
    return {**kept, "TMPDIR": str(home), **more}


class SidecarProcess:
    """`agentstream sidecar`, with the Node that it started."""

    def __init__(self, process: asyncio.subprocess.Process, listening: Mapping[str, object]) -> None:
        self.process = process
        self.port = int(str(listening["port"]))
        self.node = psutil.Process(int(str(listening["pid"])))

    async def kill(self) -> None:
        """Kill -9, both of them at once, as a machine that goes down would."""
        self.node.kill()
        self.process.kill()
        await self.process.communicate()


async def until_it_listens(process: asyncio.subprocess.Process) -> dict[str, object]:
    """What it says of itself then."""
    assert process.stderr is not None
    while LISTENING not in (line := (await process.stderr.readline()).decode()):
        assert line, "it ended before it listened"
    said: dict[str, object] = json.loads(line)
    return said


@asynccontextmanager
async def sidecar(home: Path, *, port: int = 0, **more: str) -> AsyncIterator[SidecarProcess]:
    """One that listens; killed at the end if it still lives."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("sidecar", "--port", str(port)),
        env=variables(home, **{"AGENTSTREAM_PI_HTTP_TOKEN": TOKEN, **more}),
        cwd=home,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield SidecarProcess(process, await until_it_listens(process))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_sigterm_ends_it_with_all_its_processes_and_directories(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as one:
        one.process.terminate()
        assert await one.process.wait() == 0
        assert not one.node.is_running()
    await eventually(lambda: not list(tmp_path.iterdir()))


async def test_a_node_that_dies_is_replaced_on_the_same_port(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as one:
        one.node.kill()
        again = await until_it_listens(one.process)
        assert again["port"] == one.port
        assert again["pid"] != one.node.pid
        one.process.terminate()
        assert await one.process.wait() == 0


async def test_killed_itself_it_takes_its_node_along(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as one:
        mark = one.node.environ()["AGENTSTREAM_RUN"]
        one.process.kill()
        await one.process.communicate()
        await eventually(lambda: not marked(mark) and not list(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("options", "settings", "code", "words"),
    [
        (["--host", "0.0.0.0"], {}, 2, "AGENTSTREAM_PI_HTTP_TOKEN: is not set, and others can reach 0.0.0.0"),
        (["--host", "::"], {}, 2, "AGENTSTREAM_PI_HTTP_TOKEN"),
        (["--port", "70000"], {}, 2, "--port"),
        ([], {"AGENTSTREAM_PI_HTTP_TOKEN_FILE": "nowhere"}, 2, "AGENTSTREAM_PI_HTTP_TOKEN_FILE"),
        ([], {"AGENTSTREAM_PI_HTTP_TOKEN": "two words"}, 2, "AGENTSTREAM_PI_HTTP_TOKEN: must be one word"),
        (["--host", "256.1.2.3"], {"AGENTSTREAM_PI_HTTP_TOKEN": TOKEN}, 3, "the sidecar does not listen"),
    ],
)
async def test_what_it_refuses_is_one_line(
    tmp_path: Path, options: list[str], settings: dict[str, str], code: int, words: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "sidecar", *options, env=variables(tmp_path, **settings), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == code
    assert words in said.decode()
    assert "Traceback" not in said.decode()
    assert said.decode().count("\n") == 1


async def test_doctor_says_whether_the_sidecar_is_there(tmp_path: Path) -> None:
    async def doctor(port: int, token: str) -> dict[str, dict[str, str]]:
        where = {"AGENTSTREAM_PI_HTTP_URL": f"http://127.0.0.1:{port}", "AGENTSTREAM_PI_HTTP_TOKEN": token}
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "doctor", "--json"),
            env=variables(tmp_path, AGENTSTREAM_HARNESSES="pi-http", **where),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return {check["name"]: check for check in json.loads(out)}

    async with sidecar(tmp_path) as one:
        assert (await doctor(one.port, TOKEN))["harness pi-http"]["verdict"] == "ok"
        refused = (await doctor(one.port, "wrong"))["harness pi-http"]
    assert refused["verdict"] == "broken"
    assert "refuses the token" in refused["found"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def fleet_with_pi_http(kafka: str, prefix: str, logs: Path, model: OfflineModel, port: int) -> Fleet:
    config = logs / "agentstream.toml"
    config.write_text(
        f'[credentials.offline]\nprovider = "offline"\napi_key = {json.dumps(KEY)}\n'
        f'base_url = {json.dumps(model.base_url)}\napi = "openai-completions"\n'
    )
    environment = {
        "AGENTSTREAM_HARNESSES": "pi-http",
        "AGENTSTREAM_TOOLS": "bash",
        "AGENTSTREAM_CONFIG": str(config),
        "AGENTSTREAM_MODEL": "offline/demo",
        "AGENTSTREAM_PI_HTTP_URL": f"http://127.0.0.1:{port}",
        "AGENTSTREAM_PI_HTTP_TOKEN": TOKEN,
    }
    return Fleet(bootstrap_servers=kafka, prefix=prefix, logs=logs, environment=environment)


@pytest.mark.parametrize("all_of_it", [True, False], ids=["all of it", "its Node, which is replaced"])
async def test_a_sidecar_killed_and_started_again_under_load_loses_no_request(
    kafka: str, topics: str, tmp_path: Path, all_of_it: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    port = free_port()
    slow = '[[tool:bash {"command": "sleep 2"}]][[say: done]]'
    async with OfflineModel() as model:
        fleet = fleet_with_pi_http(kafka, topics, tmp_path, model, port)
        async with (
            sidecar(home, port=port) as first,
            fleet.started(workers=1, partitions=2),
            fleet.results() as results,
            RequestProducer(
                lambda: idempotent_producer(fleet.connection, max_request_size=MAX_REQUEST_BYTES), fleet.topics
            ) as producer,
        ):
            sent = [
                await producer.submit(
                    InvokeRequest(
                        session_id=f"session-{number}",
                        messages=(Message.of_text("user", slow),),
                        parameters=AgentParameters(tools=("bash",)),
                    )
                )
                for number in range(REQUESTS)
            ]
            mark = first.node.environ()["AGENTSTREAM_RUN"]
            # All of them are in flight, their tools under way, when it is killed.
            await eventually(lambda: len([p for p in marked(f"{mark}/") if p.name() == "sleep"]) >= REQUESTS, within=60)
            async with AsyncExitStack() as stack:
                if all_of_it:
                    await first.kill()
                    await eventually(lambda: not marked(mark))
                    await stack.enter_async_context(sidecar(home, port=port))
                else:
                    first.node.kill()
                await results.until(REQUESTS)
                log = await read_log(kafka, fleet.topics, fleet.group_id)
    assert violations(log, [one.run_id for one in sent]) == []
    assert sorted(line.body["run_id"] for line in log.results) == sorted(one.run_id for one in sent)
    assert {line.body["status"] for line in log.results} == {"completed"}
    assert max(line.body["attempt"] for line in log.results) > 1
