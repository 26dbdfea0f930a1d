"""Kafka in Docker, through testcontainers: its reaper removes the containers when we die."""

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from agentstream.infra.broker.log_end import log_end, taken_port
from agentstream.infra.broker.port import (
    KAFKA_VERSION,
    START_TIMEOUT_S,
    STARTED_LINE,
    BrokerOptions,
    LocalBroker,
    PortTaken,
    client_ports,
    not_started,
    server_properties,
)
from agentstream.infra.toolchain import Progress

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_LOOK_S = 2.0
"""Between two looks at the containers: the engine's own `wait` blocks a thread that cannot be cancelled."""


def docker_is_usable() -> bool:
    """Tell whether a Docker engine answers, by DOCKER_HOST, the current context or the default socket."""
    # Imported here: 0.3 s that only who starts a broker should pay.
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    host = get_docker_host() or "unix:///var/run/docker.sock"
    if host.startswith("unix://") and not _is_listening(host.removeprefix("unix://")):
        return False  # asked first, because the docker library leaves its socket open when nobody answers
    try:
        client = DockerClient(timeout=5).client
    except (DockerException, OSError):
        return False
    with contextlib.closing(client):
        return bool(client.ping())


def ensure_image(progress: Progress) -> None:
    """Pull Kafka's image unless it is here; so that the first start of a broker does not run into a timeout."""
    from docker.errors import ImageNotFound
    from testcontainers.core.docker_client import DockerClient

    with contextlib.closing(DockerClient().client) as client:
        try:
            client.images.get(_IMAGE)
        except ImageNotFound:
            progress(f"pulling {_IMAGE} …")
            client.images.pull(_IMAGE)


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


class DockerBroker(LocalBroker):
    """A cluster of containers, each with its client port bound to a free port of the host."""

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._ports = client_ports(options)
        self._host = "localhost"
        self._network: Network | None = None
        self._containers: dict[int, DockerContainer] = {}
        self._starts: dict[int, int] = {}

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"{self._host}:{port}" for port in self._ports)

    @property
    def kind(self) -> str:
        return "docker"

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._create)
            await asyncio.gather(*(self._until_started(number) for number in self._containers))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        containers, self._containers = self._containers, {}
        network, self._network = self._network, None
        for container in containers.values():
            await asyncio.to_thread(container.stop)
        if network is not None:
            await asyncio.to_thread(network.remove)

    async def kill(self, *nodes: int) -> None:
        for number in nodes or tuple(self._containers):
            await asyncio.to_thread(self._containers[number].get_wrapped_container().kill)

    async def restart(self) -> None:
        stopped = [number for number in self._containers if not self._is_running(number)]
        for number in stopped:
            await asyncio.to_thread(self._containers[number].get_wrapped_container().start)
            self._starts[number] += 1
        await asyncio.gather(*(self._until_started(number) for number in stopped))

    async def ended(self) -> str:
        while running := tuple(self._containers):
            for number in running:
                if not await asyncio.to_thread(self._is_running, number):
                    end = log_end(await asyncio.to_thread(self._log, number))
                    return f"the container of node {number} stopped; the end of its log: {end}"
            await asyncio.sleep(_LOOK_S)
        return "all containers stopped"

    def _create(self) -> None:
        from docker.errors import APIError
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.docker_client import DockerClient
        from testcontainers.core.network import Network

        self._host = DockerClient().host()
        self._network = Network().create()
        for number in range(1, self._options.brokers + 1):
            container = DockerContainer(_IMAGE).with_network(self._network).with_network_aliases(f"kafka-{number}")
            container.with_bind_ports(9092, self._ports[number - 1])
            container.with_envs(**self._environment(number))
            self._containers[number] = container
            self._starts[number] = 1
            try:
                container.start()
            except APIError as error:
                if (port := taken_port(str(error))) is not None:
                    raise PortTaken(port) from error
                raise

    def _environment(self, number: int) -> dict[str, str]:
        first = number == 1
        listeners = "PLAINTEXT://0.0.0.0:9092,INTERNAL://0.0.0.0:9094" + (",CONTROLLER://0.0.0.0:9093" if first else "")
        properties = {
            "process.roles": "broker,controller" if first else "broker",
            "node.id": str(number),
            "controller.quorum.voters": "1@kafka-1:9093",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": listeners,
            "advertised.listeners": (
                f"PLAINTEXT://{self._host}:{self._ports[number - 1]},INTERNAL://kafka-{number}:9094"
            ),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        } | server_properties(self._options)
        named = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in properties.items()}
        # All nodes share the image's default cluster id, so that they find each other.
        return named | {"KAFKA_HEAP_OPTS": f"-Xmx{self._options.heap_mb}m"} | self._quick_start()

    def _quick_start(self) -> dict[str, str]:
        flags = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        return {"KAFKA_JVM_PERFORMANCE_OPTS": flags} if self._options.quick_start else {}

    def _is_running(self, number: int) -> bool:
        container = self._containers[number].get_wrapped_container()
        container.reload()
        return bool(container.status == "running")

    async def _until_started(self, number: int) -> None:
        """Wait for the log's n-th "started" line: a restarted container keeps its log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (log := await asyncio.to_thread(self._log, number)).count(STARTED_LINE) < self._starts[number]:
            if time.monotonic() > deadline or not await asyncio.to_thread(self._is_running, number):
                raise not_started(number, log)
            await asyncio.sleep(0.1)

    def _log(self, number: int) -> str:
        with contextlib.suppress(KeyError):
            return b"\n".join(self._containers[number].get_logs()).decode(errors="replace")
        return ""
