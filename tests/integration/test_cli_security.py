"""SASL over TLS against a real broker that takes nothing else."""

import subprocess
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from agentstream.infra.broker import BrokerOptions, find_broker
from agentstream.infra.connection import kafka_connection
from agentstream.infra.settings import KafkaSettings
from agentstream.infra.topics import apply_topics
from agentstream.schemas.topics import Topics
from tests.conftest import PrivateKafka
from tests.integration.test_cli import Terminal

PASSWORD = "a-good-password"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1 and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


def broker_properties(certificate: Path, key: Path) -> dict[str, str]:
    store = certificate.with_name("store.pem")
    store.write_text(key.read_text() + certificate.read_text())
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listener.security.protocol.map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": (
            f'{login} username="admin" password="admin" user_admin="admin" user_me="{PASSWORD}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate),
    }


async def test_sasl_over_tls_works_with_the_right_password_and_certificate_and_with_no_other(
    private_kafka: PrivateKafka, certificate: tuple[Path, Path], topics: str, tmp_path: Path
) -> None:
    if find_broker(own=True).kind != "maven":
        pytest.skip("the listeners of the Docker broker are its own")
    broker = await private_kafka(BrokerOptions(properties=broker_properties(*certificate)))
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": broker.bootstrap_servers,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "me",
            "sasl_password": PASSWORD,
            "ssl_cafile": str(certificate[0]),
        }
    )
    plan = await apply_topics(kafka_connection(settings), Topics(prefix=topics), partitions=1)
    assert len(plan.steps) == 7
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": "wrong-password",
        "KAFKA_SSL_CAFILE": str(certificate[0]),
    }
    done = await Terminal(home=tmp_path, variables=variables).type("where", "x")
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert "Authentication failed" in done.err, "people looked for a firewall"
    assert "wrong-password" not in done.err
    for wrong in ({"sasl_password": "wrong-password"}, {"ssl_cafile": None}, {"security_protocol": "SASL_PLAINTEXT"}):
        values = {**settings.model_dump(), "sasl_password": PASSWORD, **wrong}
        refused = kafka_connection(KafkaSettings.model_validate(values))
        with pytest.raises(KafkaError):
            await apply_topics(refused, Topics(prefix=topics))
