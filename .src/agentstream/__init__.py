"""Run AI agents from Kafka: requests in, live deltas and exactly one result per request out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentstream.consumers.client import AgentClient

__all__ = ["AgentClient"]


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for, so that `import agentstream` alone loads no Kafka library."""
    if name == "AgentClient":
        from agentstream.consumers.client import AgentClient

        return AgentClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
