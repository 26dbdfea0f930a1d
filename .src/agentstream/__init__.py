"""Run AI agents from Kafka: requests in, live deltas and exactly one result per request out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentstream.consumers.client import AgentClient, SyncAgentClient

__all__ = ["AgentClient", "SyncAgentClient"]


def __getattr__(name: str) -> object:
    """Import a client when it is first asked for, so that `import agentstream` alone loads no Kafka library."""
    if name in __all__:
        from agentstream.consumers import client

        found: object = getattr(client, name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
