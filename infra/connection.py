"""Settings as the plain values that everything below `infra` takes: connection, credentials, limits, secrets."""

import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from aiokafka.abc import AbstractTokenProvider
from pydantic import SecretStr

from agentstream.consumers.harness.port import Credentials, RunLimits
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.retries import RetryCeilings
from agentstream.infra.dev_state import running_elsewhere
from agentstream.infra.settings import CredentialSettings, KafkaSettings, Settings, TraceTargetSettings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.telemetry.environment import TraceTarget, telemetry_secrets
from agentstream.producers.connection import KafkaConnection

_TOKEN_TIMEOUT_S = 10.0
_RENEW_BEFORE_S = 30.0


def kafka_connection(settings: KafkaSettings, *, bootstrap_servers: str | None = None) -> KafkaConnection:
    """How to reach the cluster; `bootstrap_servers` over the settings'. Raises SettingsError for unusable TLS files."""
    servers = bootstrap_servers or settings.bootstrap_servers
    if not servers:
        raise SettingsError(f"KAFKA_BOOTSTRAP_SERVERS: is not set; {_advice()}")
    return KafkaConnection(
        bootstrap_servers=servers,
        client_id=settings.client_id,
        security_protocol=settings.security_protocol,
        ssl_context=_ssl_context(settings) if settings.security_protocol.endswith("SSL") else None,
        sasl_mechanism=settings.sasl_mechanism,
        sasl_username=settings.sasl_username,
        sasl_password=_secret(settings.sasl_password),
        sasl_oauth_token_provider=_token_provider(settings),
    )


def _advice() -> str:
    if (elsewhere := running_elsewhere()) is None:
        return "name your brokers (host:port), or start some with `agentstream dev`"
    return (
        f"`agentstream dev` runs (pid {elsewhere.pid}), but in a terminal with another XDG_RUNTIME_DIR: "
        f"KAFKA_BOOTSTRAP_SERVERS={elsewhere.bootstrap_servers} goes there"
    )


def named_credentials(settings: Settings) -> dict[str, Credentials]:
    """The credentials by name. Raises SettingsError where a variable that should hold a key is not set."""
    return {name: _credentials(name, given) for name, given in settings.credentials.items()}


def trace_targets(settings: Settings) -> dict[str, TraceTarget]:
    """The places for spans by name. Raises SettingsError where a variable that should hold a header is not set."""
    return {name: _trace_target(name, given) for name, given in settings.trace_targets.items()}


def run_limits(settings: Settings) -> RunLimits:
    """The worker's bounds."""
    return RunLimits(**settings.limits.model_dump())


def retry_ceilings(settings: Settings) -> RetryCeilings:
    """How long requests may have a run wait between attempts."""
    return RetryCeilings(**settings.retry.model_dump())


def redactor(settings: Settings) -> Redactor:
    """Knows every secret of the settings."""
    return Redactor(_secrets(settings))


def _secrets(settings: Settings) -> Iterator[str]:
    kafka = settings.kafka
    for secret in (kafka.sasl_password, kafka.sasl_oauth_client_secret, kafka.ssl_password):
        if secret is not None:
            yield secret.get_secret_value()
    for given in settings.credentials.values():
        if key := _key(given):
            yield key
        for header in given.headers.values():
            yield header.get_secret_value()
    for target in settings.trace_targets.values():
        for value in _trace_headers(target).values():
            yield from (value, value.rpartition(" ")[2])
    if (token := pi_http_token(settings)) is not None:
        yield token
    yield from telemetry_secrets()


def pi_http_token(settings: Settings) -> str | None:
    """The token between `pi-http` and its sidecar, where there is one. Raises SettingsError."""
    path, token = settings.pi_http_token_file, _secret(settings.pi_http_token)
    if path is not None and token is not None:
        raise SettingsError("AGENTSTREAM_PI_HTTP_TOKEN and AGENTSTREAM_PI_HTTP_TOKEN_FILE: set one of them")
    if path is not None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"AGENTSTREAM_PI_HTTP_TOKEN_FILE: cannot be read ({type(error).__name__})") from None
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        which = "AGENTSTREAM_PI_HTTP_TOKEN" if path is None else "AGENTSTREAM_PI_HTTP_TOKEN_FILE"
        raise SettingsError(f"{which}: must be one word of ASCII")
    return token


def _trace_target(name: str, given: TraceTargetSettings) -> TraceTarget:
    headers = _trace_headers(given)
    if given.authorization_env is not None and "authorization" not in headers:
        raise SettingsError(f"{given.authorization_env}: is not set, and trace_targets.{name} is to send it")
    path = "/v1/traces"
    endpoint = given.endpoint if given.endpoint.endswith(path) else given.endpoint.removesuffix("/") + path
    return TraceTarget(endpoint=endpoint, headers=headers, exclusive=given.exclusive)


def _trace_headers(given: TraceTargetSettings) -> dict[str, str]:
    headers = {name.lower(): value.get_secret_value() for name, value in given.headers.items()}
    authorization = _secret(given.authorization) or os.environ.get(given.authorization_env or "")
    return {**headers, **({"authorization": authorization} if authorization else {})}


def _credentials(name: str, given: CredentialSettings) -> Credentials:
    key = _key(given)
    if key is None and given.api_key_env is not None:
        raise SettingsError(f"{given.api_key_env}: is not set, and credentials.{name} take their key from it")
    if key is None and given.base_url is None:
        raise SettingsError(f"credentials.{name}: need `api_key`, `api_key_env` or the `base_url` of an open endpoint")
    return Credentials(
        name=name,
        provider=given.provider,
        api_key=key or "",
        base_url=given.base_url,
        api=given.api,
        headers={header: value.get_secret_value() for header, value in given.headers.items()},
        input_price=given.input_price,
        output_price=given.output_price,
    )


def _key(given: CredentialSettings) -> str | None:
    return _secret(given.api_key) or (os.environ.get(given.api_key_env) if given.api_key_env else None) or None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certfile is not None:
            # An empty password rather than none: OpenSSL would ask for it on the terminal, and the worker hang.
            password = _secret(settings.ssl_password) or ""
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"KAFKA_SSL_CAFILE, KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: cannot be used ({error}): "
            "they must be PEM files, with KAFKA_SSL_PASSWORD if the key is encrypted"
        ) from None
    return context


def _token_provider(settings: KafkaSettings) -> AbstractTokenProvider | None:
    if not settings.security_protocol.startswith("SASL") or settings.sasl_mechanism != "OAUTHBEARER":
        return None
    if settings.sasl_oauth_token_file is not None:
        return _FileToken(settings.sasl_oauth_token_file)
    return _EndpointToken(settings)


class _FileToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token that somebody else renews, such as Kubernetes' projected ones: read anew for each connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        return self._path.read_text(encoding="utf-8").strip()


class _EndpointToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token by OAuth client credentials, kept until shortly before it expires."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._token = ""
        self._until = 0.0

    async def token(self) -> str:
        if time.monotonic() >= self._until:
            form = {"grant_type": "client_credentials"}
            if self._settings.sasl_oauth_scope:
                form["scope"] = self._settings.sasl_oauth_scope
            auth = (self._settings.sasl_oauth_client_id or "", _secret(self._settings.sasl_oauth_client_secret) or "")
            async with httpx.AsyncClient(timeout=_TOKEN_TIMEOUT_S) as client:
                answer = await client.post(self._settings.sasl_oauth_token_url or "", data=form, auth=auth)
            answer.raise_for_status()
            body = answer.json()
            self._token = str(body["access_token"])
            self._until = time.monotonic() + float(body.get("expires_in", 0)) - _RENEW_BEFORE_S
        return self._token
