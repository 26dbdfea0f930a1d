"""A real Apache Kafka in KRaft mode from Maven's jars: one Java process for each node. About 2 s to start."""

import asyncio
import base64
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from agentstream.infra.broker.log_end import log_end
from agentstream.infra.broker.port import (
    START_TIMEOUT_S,
    STARTED_LINE,
    BrokerError,
    BrokerOptions,
    LocalBroker,
    client_ports,
    free_ports,
    not_started,
    server_properties,
)
from agentstream.infra.toolchain import Progress, ensure_kafka_jars, find_java, quiet

# Measured on two cores, format and start together: 2.9 s without these flags, 2.0 s with them.
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_COLLECT_S = 5.0
_SIGNALLED = 128
"""The keeper's exit codes above it are signals that ended Kafka."""
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


@dataclass(frozen=True, kw_only=True)
class _Node:
    """One Kafka process."""

    number: int
    """Its node id, from 1."""
    keeper: subprocess.Popen[str]
    """The process that kills Kafka when we are gone."""
    kafka: psutil.Process
    """Kafka's own process."""
    log: Path
    """What it says."""


class MavenBroker(LocalBroker):
    """A cluster of local Java processes on free ports, its data and logs in a temporary directory."""

    def __init__(self, options: BrokerOptions, *, progress: Progress = quiet) -> None:
        self._options = options
        self._progress = progress
        self._ports = client_ports(options)
        self._controller_ports = [port for port in free_ports(2 * options.brokers) if port not in self._ports][
            : options.brokers
        ]
        self._home: Path | None = None
        self._nodes: dict[int, _Node] = {}

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def kind(self) -> str:
        return "maven"

    async def start(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="agentstream-kafka-"))
        self._home = home
        try:
            jars = await asyncio.to_thread(ensure_kafka_jars, self._progress)
            self._java = (str(find_java()), f"-Xmx{self._options.heap_mb}m", *self._flags(), "-cp", f"{jars}/*")
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
            numbers = range(1, self._options.brokers + 1)
            await asyncio.gather(*(asyncio.to_thread(self._format, home, number, cluster) for number in numbers))
            await self._run(home, numbers)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        home, self._home = self._home, None
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            _close_pipes(node.keeper)
        for node in nodes.values():
            await asyncio.to_thread(_until_gone, node)
        if home is not None:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    async def kill(self, *nodes: int) -> None:
        for number in nodes or tuple(self._nodes):
            node = self._nodes.pop(number)
            with contextlib.suppress(psutil.NoSuchProcess):
                node.kafka.kill()
            # The pipes last: at their end the keeper would delete the data.
            await asyncio.to_thread(_until_gone, node)
            _close_pipes(node.keeper)

    async def restart(self) -> None:
        if self._home is None:
            raise BrokerError("The broker was not started")
        await self._run(self._home, [n for n in range(1, self._options.brokers + 1) if n not in self._nodes])

    async def ended(self) -> str:
        node = await _first_ended(tuple(self._nodes.values()))
        code = await asyncio.to_thread(node.keeper.wait)
        end = log_end(node.log.read_text(errors="replace"))
        if code > _SIGNALLED:
            why = f"was ended by signal {code - _SIGNALLED}"
        else:
            why = f"ended with exit code {code}" if code >= 0 else f"lost its keeper by signal {-code}"
        return f"the process of node {node.number} {why}; the end of its log: {end}"

    def _flags(self) -> Sequence[str]:
        return (*_LOGGING, *_QUICK_START) if self._options.quick_start else _LOGGING

    def _format(self, home: Path, number: int, cluster: str) -> None:
        """Write a node's properties and give its data directory the cluster's id."""
        config = home / f"node-{number}.properties"
        properties = self._properties(home, number)
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        command = [*self._java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(config)]
        for name, password in self._options.scram_users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BrokerError(f"Kafka could not format its data directory: {log_end(done.stdout + done.stderr)}")

    def _properties(self, home: Path, number: int) -> dict[str, str]:
        here = f"PLAINTEXT://127.0.0.1:{self._ports[number - 1]}"
        controller = f"CONTROLLER://127.0.0.1:{self._controller_ports[number - 1]}"
        # Each node votes: were one alone the controller, no partition would get another leader while it is down.
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controller_ports, start=1))
        return {
            "process.roles": "broker,controller",
            "node.id": str(number),
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{here},{controller}",
            "advertised.listeners": here,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(home / f"data-{number}"),
        } | server_properties(self._options)

    async def _run(self, home: Path, numbers: Sequence[int]) -> None:
        logs = {number: _new_log(home, number) for number in numbers}
        for number, log in logs.items():
            # Node by node, at once and unawaited: whatever happens later, `stop` knows of each one.
            self._nodes[number] = self._spawn(home, number, log)
        await asyncio.gather(*(_until_started(self._nodes[number]) for number in numbers))

    def _spawn(self, home: Path, number: int, log: Path) -> _Node:
        command = [*self._java, "kafka.Kafka", str(home / f"node-{number}.properties")]
        keeper = str(Path(__file__).with_name("keeper.py"))
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper, str(home), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        try:
            kafka = psutil.Process(int(process.stdout.readline() if process.stdout else ""))
        except (ValueError, psutil.NoSuchProcess):
            _close_pipes(process)
            raise BrokerError(f"Kafka's process could not be started: {log_end(log.read_text())}") from None
        return _Node(number=number, keeper=process, kafka=kafka, log=log)


def _new_log(home: Path, number: int) -> Path:
    """Return a log file of its own for every start: the line of an earlier start must not be taken for this one's."""
    started_before = len(list(home.glob(f"node-{number}.*.log")))
    return home / f"node-{number}.{started_before + 1}.log"


async def _until_started(node: _Node) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while STARTED_LINE not in (said := node.log.read_text(errors="replace")):
        if node.keeper.poll() is not None or time.monotonic() > deadline:
            raise not_started(node.number, said)
        await asyncio.sleep(0.02)


async def _first_ended(nodes: Sequence[_Node]) -> _Node:
    """Wait for the end of a keeper's output: it ends with the keeper, and so with Kafka, which has none of its own."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[_Node] = loop.create_future()
    readers = {node.keeper.stdout.fileno(): node for node in nodes if node.keeper.stdout is not None}

    def ended(number: int) -> None:
        loop.remove_reader(number)
        if not first.done():
            first.set_result(readers[number])

    for number in readers:
        loop.add_reader(number, ended, number)
    try:
        return await first
    finally:
        for number in readers:
            loop.remove_reader(number)


def _until_gone(node: _Node) -> None:
    """Wait for the keeper, which ends after Kafka does; a keeper that was killed itself has not seen to that."""
    if node.keeper.wait() >= 0:
        return
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):  # it waits for init to collect it
        node.kafka.kill()
        node.kafka.wait(_COLLECT_S)


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
