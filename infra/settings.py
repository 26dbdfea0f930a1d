"""What is configured: environment over file over constants, read once and frozen. Never passed below `infra`.

    KAFKA_*             how to reach the cluster        [kafka] in the file
    AGENTSTREAM_*       everything else                 the file's top level
    AGENTSTREAM_LIMITS_*  bounds of a run               [limits]
    AGENTSTREAM_RETRY_*   longest waits before a retry  [retry]
    OPENAI_API_KEY, ANTHROPIC_API_KEY                   [credentials.NAME]
    OTEL_*              traces and metrics, read by OpenTelemetry; [trace_targets.NAME] for requests that name one

The file is `agentstream.toml` in the current directory, or the one that `--config` or AGENTSTREAM_CONFIG names.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FilePath, SecretStr, StringConstraints, model_validator
from pydantic.types import DirectoryPath
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentstream.infra.settings_types import (
    EventLoop,
    GroupId,
    Names,
    Price,
    Servers,
    SidecarUrl,
    Tools,
    TopicPrefix,
    TraceNames,
    Url,
)
from agentstream.schemas import defaults
from agentstream.schemas.requests import DAY_MS, ModelName, Name
from agentstream.schemas.topics import DEFAULT_PREFIX, MAX_REQUEST_BYTES

FILE_NAME = "agentstream.toml"
OFFLINE = "offline"
"""Name of the offline model's credentials, its provider and its model."""


class _Settings(BaseSettings):
    """Plain values. `settings_file` lays environment, file and options over each other.

    A name in the file that does not exist is an error, not a surprise.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but the arguments: read here, the environment would win over options of the command line."""
        return (init_settings,)


class KafkaSettings(_Settings):
    """How to reach the cluster."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_")

    bootstrap_servers: Servers | None = Field(default=None, description="`host:port`, several separated by commas.")
    client_id: str = Field(default="agentstream", description="Shown in the brokers' logs and quotas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How to speak with the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        default="PLAIN", description="How to log in, for SASL_*."
    )
    sasl_username: str | None = Field(default=None, description="For PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(default=None, description="For PLAIN and SCRAM; a secret.")
    sasl_oauth_token_file: FilePath | None = Field(
        default=None, description="For OAUTHBEARER: a file with the token, read anew for each connection."
    )
    sasl_oauth_token_url: str | None = Field(
        default=None, description="For OAUTHBEARER: the token endpoint (OAuth client credentials)."
    )
    sasl_oauth_client_id: str | None = Field(default=None, description="Sent to the token endpoint.")
    sasl_oauth_client_secret: SecretStr | None = Field(
        default=None, description="Sent to the token endpoint; a secret."
    )
    sasl_oauth_scope: str | None = Field(default=None, description="Sent to the token endpoint.")
    ssl_cafile: FilePath | None = Field(default=None, description="Authorities to trust (PEM); absent: the system's.")
    ssl_certfile: FilePath | None = Field(default=None, description="Our certificate (PEM), for mutual TLS.")
    ssl_keyfile: FilePath | None = Field(
        default=None, description="Its private key (PEM), unless it is in the same file."
    )
    ssl_password: SecretStr | None = Field(default=None, description="The private key's password; a secret.")
    ssl_check_hostname: bool = Field(default=True, description="Whether a broker's certificate must name its host.")

    @model_validator(mode="after")
    def _complete(self) -> "KafkaSettings":
        if not self.security_protocol.startswith("SASL"):
            if self.sasl_username or self.sasl_password:
                raise ValueError("KAFKA_SASL_USERNAME needs KAFKA_SECURITY_PROTOCOL to be SASL_SSL or SASL_PLAINTEXT")
        elif self.sasl_mechanism != "OAUTHBEARER":
            if not self.sasl_username or self.sasl_password is None:
                raise ValueError(f"{self.sasl_mechanism} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        elif self.sasl_oauth_token_file is None and not (
            self.sasl_oauth_token_url and self.sasl_oauth_client_id and self.sasl_oauth_client_secret
        ):
            raise ValueError(
                "OAUTHBEARER needs KAFKA_SASL_OAUTH_TOKEN_FILE, or KAFKA_SASL_OAUTH_TOKEN_URL with "
                "KAFKA_SASL_OAUTH_CLIENT_ID and KAFKA_SASL_OAUTH_CLIENT_SECRET"
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("KAFKA_SSL_KEYFILE needs KAFKA_SSL_CERTFILE")
        return self


class LimitSettings(_Settings):
    """The worker's bounds of a run: files and requests can only lower them."""

    model_config = SettingsConfigDict(env_prefix="AGENTSTREAM_LIMITS_")

    total_ms: int = Field(
        default=defaults.LIMITS["total_ms"], ge=1, le=7 * DAY_MS, description="From start to result, milliseconds."
    )
    first_event_ms: int = Field(
        default=defaults.LIMITS["first_event_ms"],
        ge=1,
        le=DAY_MS,
        description="Until the agent's first event, milliseconds.",
    )
    idle_ms: int = Field(
        default=defaults.LIMITS["idle_ms"],
        ge=1,
        le=DAY_MS,
        description="Between two events outside a tool, milliseconds.",
    )
    tool_ms: int = Field(
        default=defaults.LIMITS["tool_ms"], ge=1, le=DAY_MS, description="For one tool call, milliseconds."
    )
    max_turns: int = Field(
        default=defaults.LIMITS["max_turns"], ge=1, le=10_000, description="Model calls in one attempt."
    )
    max_output_bytes: int = Field(
        default=defaults.LIMITS["max_output_bytes"],
        ge=1,
        le=2**53 - 1,
        description="Bytes of text, reasoning and tool content.",
    )
    max_attempts: int = Field(
        default=defaults.LIMITS["max_attempts"], ge=1, le=20, description="Attempts within one claim."
    )


class RetrySettings(_Settings):
    """How long files and requests may have a run wait between attempts."""

    model_config = SettingsConfigDict(env_prefix="AGENTSTREAM_RETRY_")

    base_ms: int = Field(
        default=defaults.RETRY_CEILINGS["base_ms"],
        ge=0,
        le=DAY_MS,
        description="Bound of the first wait, milliseconds.",
    )
    cap_ms: int = Field(
        default=defaults.RETRY_CEILINGS["cap_ms"], ge=0, le=DAY_MS, description="Bound of every wait, milliseconds."
    )
    retry_after_ms: int = Field(
        default=defaults.RETRY_CEILINGS["retry_after_ms"],
        ge=0,
        le=DAY_MS,
        description="Up to which a provider's Retry-After is honoured, milliseconds.",
    )


class CredentialSettings(_Settings):
    """How to reach one provider. Only the file holds these, except for OPENAI_API_KEY and ANTHROPIC_API_KEY."""

    provider: Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,64}$")] = Field(
        description="The provider it is for: the first part of `provider/id`."
    )
    api_key: SecretStr | None = Field(default=None, description="The key; a secret.")
    api_key_env: str | None = Field(default=None, description="The environment variable that holds the key.")
    base_url: Url | None = Field(default=None, description="An endpoint; absent: the provider's own.")
    api: str | None = Field(default=None, description="The endpoint's dialect, such as `openai-completions`.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Additional headers; secrets.")
    input_price: Price | None = Field(default=None, description="USD per million input tokens, as text.")
    output_price: Price | None = Field(default=None, description="USD per million output tokens, as text.")


class TraceTargetSettings(_Settings):
    """A place for the spans of requests that name it. Only the file holds these."""

    endpoint: Url = Field(description="Where OTLP/HTTP is spoken; `/v1/traces` is put behind it, unless it is there.")
    authorization: SecretStr | None = Field(default=None, description="The Authorization header, whole; a secret.")
    authorization_env: str | None = Field(default=None, description="The environment variable that holds it.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Additional headers; secrets.")
    exclusive: bool = Field(default=False, description="Keep these spans from OTEL_EXPORTER_OTLP_ENDPOINT.")


class Settings(_Settings):
    """Everything that is configured."""

    model_config = SettingsConfigDict(env_prefix="AGENTSTREAM_")

    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="How to reach the cluster.")
    topic_prefix: TopicPrefix = Field(default=DEFAULT_PREFIX, description="What all topic names begin with.")
    group_id: GroupId = Field(default="agentstream", description="The workers' consumer group.")
    harnesses: Names = Field(
        default=(defaults.HARNESS,),
        min_length=1,
        description="Harnesses that requests may ask for; the first is the default.",
    )
    model: ModelName | None = Field(
        default=None, description="`provider/id` where neither request nor agent.json name a model."
    )
    tools: Tools = Field(default=(), description="Tools that requests may ask for; none unless listed.")
    agent_dir: DirectoryPath | None = Field(
        default=None, description="Directory with AGENTS.md and agent.json; absent: no such files are read."
    )
    max_in_flight: int = Field(default=64, ge=1, le=10_000, description="Runs under way at once in one worker.")
    max_request_bytes: int = Field(
        default=MAX_REQUEST_BYTES, ge=1_024, le=64 * MAX_REQUEST_BYTES, description="Largest request."
    )
    session_timeout_ms: int = Field(
        default=15_000, ge=1_000, le=1_800_000, description="A silent worker's partitions go to others after this long."
    )
    heartbeat_interval_ms: int = Field(
        default=3_000, ge=100, le=600_000, description="How often a worker tells the group that it lives."
    )
    grace_seconds: float = Field(
        default=20.0, ge=0, le=3_600, description="How long started runs may go on after SIGTERM."
    )
    sandbox: Literal["none", "bubblewrap"] = Field(
        default="none", description="Where the shell tool runs: bubblewrap keeps it in its directory (Linux)."
    )
    pi_http_url: SidecarUrl | None = Field(
        default=None, description="Where the sidecar of the harness `pi-http` listens, such as http://127.0.0.1:8790."
    )
    pi_http_token: SecretStr | None = Field(
        default=None, description="What `pi-http` shows it, and `agentstream sidecar` asks for; a secret."
    )
    pi_http_token_file: FilePath | None = Field(default=None, description="A file that holds the token instead.")
    http_port: int = Field(
        default=0, ge=0, le=65_535, description="Port of /livez, /readyz, /status and /metrics of a worker; 0: none."
    )
    http_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address it listens on; 0.0.0.0 for probes from elsewhere."
    )
    event_loop: EventLoop = Field(
        default="auto", description="What a worker runs on; auto: uvloop if it is installed, else Python's own."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people on a terminal, JSON lines otherwise."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="The worker's bounds of a run.")
    retry: RetrySettings = Field(
        default_factory=RetrySettings, description="How long a run may be made to wait before it is tried again."
    )
    credentials: dict[Name, CredentialSettings] = Field(
        default_factory=dict, description="Credentials by the name under which requests ask for them."
    )
    trace_targets: dict[Name, TraceTargetSettings] = Field(
        default_factory=dict, description="Places for spans by the name under which requests ask for them."
    )
    trace_names: TraceNames = Field(
        default=(),
        description="In spans besides OpenTelemetry's names: `prompt_tokens` (the older ones), `openinference`.",
    )
    trace_dir: Path | None = Field(
        default=None, description="Directory in which a worker keeps its last spans, 32 MiB at most; absent: none."
    )

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> "Settings":
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                "AGENTSTREAM_HEARTBEAT_INTERVAL_MS must be at most a third of AGENTSTREAM_SESSION_TIMEOUT_MS, "
                "or one lost heartbeat costs the partitions"
            )
        return self
