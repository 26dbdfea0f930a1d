import asyncio
import ssl
from pathlib import Path

import pytest

from agentstream.infra.connection import kafka_connection
from agentstream.infra.settings import KafkaSettings
from agentstream.infra.settings_file import SettingsError


def test_without_brokers_it_says_how_to_get_some() -> None:
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS: is not set.*agentstream dev"):
        kafka_connection(KafkaSettings(bootstrap_servers=None))


def test_scram_over_tls_reaches_the_client_whole() -> None:
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": "broker:9093",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "me",
            "sasl_password": "secret",
            "ssl_check_hostname": False,
        }
    )
    options = kafka_connection(settings).client_options()
    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname
    assert options == {
        "bootstrap_servers": "broker:9093",
        "client_id": "agentstream",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
        "sasl_oauth_token_provider": None,
    }
    assert "secret" not in repr(kafka_connection(settings))


def test_without_tls_there_are_no_certificates() -> None:
    assert kafka_connection(KafkaSettings(bootstrap_servers="a:1")).ssl_context is None


def test_a_file_that_is_no_certificate_is_refused_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("this is no certificate")
    settings = KafkaSettings(bootstrap_servers="a:1", security_protocol="SSL", ssl_cafile=wrong)
    with pytest.raises(SettingsError, match=r"^KAFKA_SSL_CAFILE.*PEM") as caught:
        kafka_connection(settings)
    assert "\n" not in str(caught.value)


async def test_a_token_file_is_read_anew_for_each_connection(tmp_path: Path) -> None:
    # Kubernetes replaces projected tokens every hour: one that was kept would be refused at the next reconnect.
    file = tmp_path / "token"
    file.write_text("first\n")
    settings = KafkaSettings(
        bootstrap_servers="a:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_file=file,
    )
    provider = kafka_connection(settings).sasl_oauth_token_provider
    assert await provider.token() == "first"
    file.write_text("second\n")
    assert await provider.token() == "second"


async def test_a_token_by_client_credentials_is_kept_until_it_expires() -> None:
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        requests.append(head + await reader.readexactly(length))
        # The first is about to expire and must not be used twice.
        body = (
            f'{{"access_token": "token-{len(requests)}", "expires_in": {20 if len(requests) == 1 else 3600}}}'.encode()
        )
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        settings = KafkaSettings.model_validate(
            {
                "bootstrap_servers": "a:1",
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token",
                "sasl_oauth_client_id": "me",
                "sasl_oauth_client_secret": "secret",
                "sasl_oauth_scope": "kafka",
            }
        )
        provider = kafka_connection(settings).sasl_oauth_token_provider
        assert [await provider.token() for _ in range(3)] == ["token-1", "token-2", "token-2"]
    assert len(requests) == 2
    assert b"grant_type=client_credentials&scope=kafka" in requests[0]
    assert b"authorization: basic" in requests[0].lower()
