import socket
from contextlib import closing

import pytest

from agentstream.infra import dev
from agentstream.infra.broker import BrokerError, BrokerOptions
from agentstream.infra.broker.port import client_ports, free_ports, is_free


def test_dev_takes_kafkas_own_port_if_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = free_ports(1)
    monkeypatch.setattr(dev, "PORT", free)
    assert dev.dev_port(None) == free
    with closing(socket.create_server(("127.0.0.1", free))):
        assert not is_free(free)
        # Any other one, rather than none: a second Kafka on the machine is no reason to fail.
        assert dev.dev_port(None) is None


def test_a_port_that_was_asked_for_and_is_taken_is_refused() -> None:
    (free,) = free_ports(1)
    assert dev.dev_port(free) == free
    with closing(socket.create_server(("127.0.0.1", free))), pytest.raises(BrokerError, match=f"port {free} is taken"):
        dev.dev_port(free)


def test_the_first_node_gets_the_port_that_was_asked_for() -> None:
    ports = client_ports(BrokerOptions(port=9092, brokers=3))
    assert ports[0] == 9092
    assert len(set(ports)) == 3
