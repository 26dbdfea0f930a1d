import pytest

from agentstream.infra.broker import BrokerError, BrokerOptions, ensure_broker, find, find_broker
from agentstream.infra.broker.port import free_ports, server_properties
from agentstream.infra.toolchain import ToolMissing


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a machine that has nothing."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "AGENTSTREAM_BROKER", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(find, "docker_is_usable", lambda: False)
    monkeypatch.setattr(find, "kafka_jars", lambda: None)


def test_a_broker_that_is_named_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    broker = find_broker()
    assert (broker.kind, broker.bootstrap_servers) == ("external", "kafka.example:9092")
    ensure_broker()


async def test_a_broker_that_is_not_ours_is_never_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    async with find_broker() as broker:
        with pytest.raises(BrokerError, match="not ours"):
            await broker.kill()
        with pytest.raises(BrokerError, match="not ours"):
            await broker.restart()


def test_who_wants_one_to_kill_does_not_get_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    monkeypatch.setattr(find, "docker_is_usable", lambda: True)
    assert find_broker(own=True).kind == "docker"


def test_docker_comes_before_maven_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "docker_is_usable", lambda: True)
    assert find_broker().kind == "docker"
    monkeypatch.setenv("AGENTSTREAM_BROKER", "maven")
    assert find_broker().kind == "maven"


def test_with_nothing_at_hand_all_the_ways_out_are_named() -> None:
    with pytest.raises(ToolMissing) as missing:
        ensure_broker()
    for way in ("Docker", "Java 17", "Maven", "KAFKA_BOOTSTRAP_SERVERS", "apt-get install"):
        assert way in missing.value.how_to_get_it


def test_a_misspelt_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSTREAM_BROKER", "podman")
    with pytest.raises(ToolMissing, match="docker or maven"):
        find_broker()


def test_replication_follows_the_number_of_nodes_and_a_property_of_the_caller_wins() -> None:
    one, three = server_properties(BrokerOptions()), server_properties(BrokerOptions(brokers=3))
    assert one["transaction.state.log.replication.factor"] == "1"
    assert three["transaction.state.log.replication.factor"] == "3"
    assert three["transaction.state.log.min.isr"] == "2"
    told = server_properties(BrokerOptions(properties={"auto.create.topics.enable": "true"}))
    assert told["auto.create.topics.enable"] == "true"


def test_ports_are_different_and_never_ones_that_a_client_could_get_as_its_own() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(1024 < port < 32_768 for port in ports)
