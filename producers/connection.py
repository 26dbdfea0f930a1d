"""How to reach the cluster: plain values, made by the composition root and passed to every Kafka client."""

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any
from weakref import WeakSet


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaConnection:
    """Where the brokers are and how to speak with them."""

    bootstrap_servers: str
    """`host:port`, several separated by commas."""
    client_id: str = "agentstream"
    """Shown in the brokers' logs and quotas."""
    security_protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    ssl_context: SSLContext | None = field(default=None, repr=False)
    """Certificates, for SSL and SASL_SSL."""
    sasl_mechanism: str = "PLAIN"
    """PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER."""
    sasl_username: str | None = None
    """For PLAIN and SCRAM."""
    sasl_password: str | None = field(default=None, repr=False)
    """For PLAIN and SCRAM; a secret."""
    sasl_oauth_token_provider: Any = field(default=None, repr=False)
    """An aiokafka AbstractTokenProvider, for OAUTHBEARER."""
    clients: WeakSet[Any] = field(default_factory=WeakSet, init=False, repr=False, compare=False)
    """What waits for answers in clients that were made with it: what one of them learns of a broker, all know."""

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "sasl_oauth_token_provider": self.sasl_oauth_token_provider,
        }
