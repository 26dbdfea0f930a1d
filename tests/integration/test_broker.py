import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agentstream.infra import dev
from agentstream.infra.broker import BrokerError, BrokerOptions, LocalBroker
from agentstream.infra.broker.docker import docker_is_usable
from agentstream.infra.broker.port import PortTaken, free_ports
from agentstream.infra.settings import Settings
from agentstream.infra.toolchain import kafka_jars
from tests.conftest import PrivateKafka


@asynccontextmanager
async def admin_of(broker: LocalBroker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def write(broker: LocalBroker, topic: str, value: bytes, *, transactional_id: str | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=transactional_id)
    await producer.start()
    try:
        if transactional_id is None:
            await producer.send_and_wait(topic, value)
        else:
            async with producer.transaction():
                await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def read_first(broker: LocalBroker, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        record = await asyncio.wait_for(consumer.getone(), 20)
        value: bytes | None = record.value
        return value
    finally:
        await consumer.stop()


async def test_it_takes_a_transaction_as_soon_as_it_has_started(broker: LocalBroker, topics: str) -> None:
    topic = f"{topics}a"
    async with admin_of(broker) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    await write(broker, topic, b"hello", transactional_id=topic)
    assert await read_first(broker, topic) == b"hello"


async def test_a_topic_is_never_made_by_a_typo(broker: LocalBroker, topics: str) -> None:
    async with admin_of(broker) as admin:
        await admin.describe_topics([f"{topics}typo"])
        assert f"{topics}typo" not in await admin.list_topics()


@pytest.fixture(params=["docker", "maven"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give each kind of broker that this machine can run."""
    chosen = str(request.param)
    if chosen == "docker" and not docker_is_usable():
        pytest.skip("no Docker engine answers here")
    if chosen == "maven" and kafka_jars() is None:
        pytest.skip("Kafka's jars were not fetched here: there was Docker, or a broker of the user's")
    monkeypatch.setenv("AGENTSTREAM_BROKER", chosen)
    return chosen


async def test_killed_and_restarted_it_has_the_same_address_and_data(kind: str, private_kafka: PrivateKafka) -> None:
    broker = await private_kafka()
    assert broker.kind == kind
    address = broker.bootstrap_servers
    async with admin_of(broker) as admin:
        await admin.create_topics([NewTopic("kept", 1, 1)])
    await write(broker, "kept", b"before")
    await broker.kill()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address.split(":"))
    await broker.restart()
    assert broker.bootstrap_servers == address
    assert await read_first(broker, "kept") == b"before"


async def test_a_cluster_of_three_replicates_and_survives_the_loss_of_one(
    kind: str, private_kafka: PrivateKafka
) -> None:
    broker = await private_kafka(BrokerOptions(brokers=3))
    async with admin_of(broker) as admin:
        cluster = await admin.describe_cluster()
        assert (broker.kind, len(cluster["brokers"])) == (kind, 3)
        await admin.create_topics([NewTopic("kept", 1, 3)])
    await broker.kill(3)
    await write(broker, "kept", b"hello", transactional_id="kept")
    assert await read_first(broker, "kept") == b"hello"
    await broker.restart()


@pytest.mark.usefixtures("kind")
async def test_one_that_cannot_start_says_why_and_leaves_nothing(private_kafka: PrivateKafka) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(BrokerError, match=r"min\.insync\.replicas"):
        await private_kafka(BrokerOptions(properties={"min.insync.replicas": "many"}))
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.usefixtures("kind")
async def test_a_port_that_somebody_else_has_taken_is_named_without_a_stack_trace(private_kafka: PrivateKafka) -> None:
    (port,) = free_ports(1)
    with closing(socket.create_server(("127.0.0.1", port))), pytest.raises(PortTaken) as refused:
        await private_kafka(BrokerOptions(port=port))
    assert (str(refused.value), refused.value.port) == (f"port {port} is taken", port)


@pytest.mark.usefixtures("kind")
async def test_of_two_devs_that_saw_the_port_free_the_later_one_takes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    (port,) = free_ports(1)
    monkeypatch.setattr(dev, "PORT", port)
    monkeypatch.setattr(dev, "is_free", lambda _port: True)  # as both saw it, seconds before Kafka listens
    said: list[str] = []
    with closing(socket.create_server(("127.0.0.1", port))):
        async with dev.running_broker(Settings(), None, said.append) as broker, admin_of(broker):
            assert not broker.bootstrap_servers.endswith(f":{port}")
        assert f"Port {port} was taken meanwhile; starting on another …" in said
        with pytest.raises(BrokerError, match=f"^port {port} is taken; name another with --port"):
            async with dev.running_broker(Settings(), port, said.append):
                pass


@pytest.mark.skipif(kafka_jars() is None, reason="only the Maven broker has a keeper")
async def test_it_ends_with_its_owner_even_if_its_keeper_was_killed(
    private_kafka: PrivateKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody who cleans up by hand kills the small Python first, and Kafka stayed for ever.
    monkeypatch.setenv("AGENTSTREAM_BROKER", "maven")
    before = set(psutil.Process().children(recursive=True))
    broker = await private_kafka()
    family = [process for process in psutil.Process().children(recursive=True) if process not in before]
    keeper = next(process for process in family if any(word.endswith("keeper.py") for word in process.cmdline()))
    assert len(family) == 2
    keeper.kill()
    if sys.platform == "linux":
        _, alive = psutil.wait_procs([process for process in family if process != keeper], timeout=20)
        assert alive == []
    await broker.stop()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


@pytest.mark.skipif(kafka_jars() is None, reason="containers are removed by testcontainers' own reaper")
def test_it_dies_with_its_owner_even_if_that_is_killed_with_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A test run that is killed must not leave a Java process of 500 MB for every try.
    monkeypatch.setenv("AGENTSTREAM_BROKER", "maven")
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import asyncio, signal, sys\n"
        "from agentstream.infra.broker import find_broker\n"
        "async def main() -> None:\n"
        "    await find_broker(own=True).start()\n"
        "    print('started', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, str(owner)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("kafka.Kafka" in " ".join(child.cmdline()) for child in children)
        homes = [Path(word) for child in children for word in child.cmdline() if "agentstream-kafka-" in word]
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    deadline = time.monotonic() + 20
    while any(home.exists() for home in homes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(home.exists() for home in homes)
