"""What a local broker offers, whatever it is made of."""

import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from agentstream.infra.broker.log_end import log_end, taken_port

KAFKA_VERSION = "4.3.1"
START_TIMEOUT_S = 90.0
STARTED_LINE = "Kafka Server started"
"""A broker logs this once it is unfenced, so that produce and metadata requests work from here on."""


class BrokerError(Exception):
    """A broker did not start, died, or cannot do what was asked of it."""


class PortTaken(BrokerError):
    """A broker did not start because somebody else listens on one of its ports."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is taken")
        self.port = port


def not_started(node: int, log: str) -> BrokerError:
    """Why this node did not start. The end of its log is a note, which `--debug` shows: the log itself is deleted."""
    port = taken_port(log)
    why = f"Kafka node {node} did not start: {log_end(log)}"
    error = BrokerError(why) if port is None else PortTaken(port)
    error.add_note("\n".join(log.splitlines()[-25:]))
    return error


@dataclass(frozen=True, kw_only=True)
class BrokerOptions:
    """How a local broker is made."""

    port: int | None = None
    """Port of the first node; absent: a free one."""
    brokers: int = 1
    """Nodes of the cluster; the first one is a controller as well, and from Maven's jars every one is."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Server properties of every node, over the defaults."""
    scram_users: Mapping[str, str] = field(default_factory=dict)
    """Passwords by name, for SCRAM-SHA-512; only the Maven broker makes them."""
    heap_mb: int = 512
    """Java heap of each node."""
    quick_start: bool = True
    """Start in half the time on slower code (C1 compiler only); switch it off to measure throughput."""


class LocalBroker(ABC):
    """A Kafka cluster that lives no longer than its owner.

    An async context manager: entering starts it, leaving stops it and deletes its data. It belongs to no event loop, so
    `start` and `stop` may run in different ones. If the owner dies, even by kill -9, the cluster dies with it.
    """

    @property
    @abstractmethod
    def bootstrap_servers(self) -> str:
        """`host:port,…` of every node; the same after a restart."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is made of: `external`, `docker` or `maven`."""

    @abstractmethod
    async def start(self) -> None:
        """Return when every node serves; else raise BrokerError with what its log says, leaving nothing behind.

        Raises PortTaken, a BrokerError, where another start on another port would do.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End every node at once and delete the data. Does nothing the second time."""

    @abstractmethod
    async def kill(self, *nodes: int) -> None:
        """Kill -9 these nodes, counted from 1, or all; their data stay."""

    @abstractmethod
    async def restart(self) -> None:
        """Start the killed nodes again, on the same ports and data; returns when they serve."""

    @abstractmethod
    async def ended(self) -> str:
        """Wait until a node's process ends that we did not kill; return what ended it, without a full stop."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def server_properties(options: BrokerOptions) -> dict[str, str]:
    """Return what every node is told beyond its addresses: small replication, quick groups, quick failure detection."""
    replicas = str(min(3, options.brokers))
    in_sync = str(min(2, options.brokers))
    return {
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 50 partitions each by default: creating them took half of the first group join.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        # After kill -9 a node is back in 6.2 s instead of 13.5: the controller must first miss its old incarnation.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The transactional ids of killed workers; tests of timeouts need them looked at often.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        **options.properties,
    }


def client_ports(options: BrokerOptions) -> list[int]:
    """A port for every node."""
    ports = free_ports(options.brokers)
    return ports if options.port is None else [options.port, *ports[1:]]


def is_free(port: int) -> bool:
    """Whether a server can listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do: connections of the one before us that are still winding up are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on, below the ephemeral range.

    A killed broker's port must stay free until it is restarted. In the ephemeral range (from 32768 on Linux) a client
    that keeps reconnecting to the dead port sooner or later gets it as its own source port: connected to itself.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports
