"""A broker that somebody else runs: KAFKA_BOOTSTRAP_SERVERS names it."""

import asyncio

from agentstream.infra.broker.port import BrokerError, LocalBroker


class ExternalBroker(LocalBroker):
    """A cluster that was there before us and stays after us."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    @property
    def bootstrap_servers(self) -> str:
        return self._bootstrap_servers

    @property
    def kind(self) -> str:
        return "external"

    async def start(self) -> None:
        """Do nothing: it runs already, or its first client will say that it does not."""

    async def stop(self) -> None:
        """Do nothing: it is not ours."""

    async def kill(self, *nodes: int) -> None:
        """Refuse: it is not ours."""
        raise BrokerError(f"The broker at {self._bootstrap_servers} is not ours to kill")

    async def restart(self) -> None:
        """Refuse: it is not ours."""
        raise BrokerError(f"The broker at {self._bootstrap_servers} is not ours to restart")

    async def ended(self) -> str:
        """Never return: whether it runs is not ours to know."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never
