"""A broker for development and tests: one that is there already, one in Docker, or one from Maven's jars."""

from agentstream.infra.broker.find import ensure_broker, find_broker
from agentstream.infra.broker.port import BrokerError, BrokerOptions, LocalBroker

__all__ = ["BrokerError", "BrokerOptions", "LocalBroker", "ensure_broker", "find_broker"]
