"""The brokers of a cluster fail one by one, and its leaders and coordinators move."""

import asyncio
from contextlib import AbstractAsyncContextManager

from agentstream.infra.broker import BrokerOptions, LocalBroker
from agentstream.schemas.topics import Topics
from tests.chaos.leaders import Leaders

OFFSETS = "__consumer_offsets"
TRANSACTIONS = "__transaction_state"


def cluster_options(brokers: int) -> BrokerOptions:
    """Brokers small enough to have three of them on one machine."""
    return BrokerOptions(brokers=brokers, heap_mb=512 if brokers == 1 else 320)


class ClusterFaults:
    """Faults of a cluster whose topics have replicas; each heals only when all of those are in sync again."""

    def __init__(self, broker: LocalBroker, topics: Topics, group_id: str) -> None:
        self._broker = broker
        self._topics = topics
        self._group_id = group_id

    async def node(self, draw: float) -> None:
        """Kill -9 of one broker, and its restart on the same data."""
        async with self._leaders() as leaders:
            nodes = await leaders.nodes()
        await self._kill(nodes[int(draw * len(nodes))], draw)

    async def group_node(self, draw: float) -> None:
        """The same to the broker that coordinates the workers' group: another one loads what it knew."""
        async with self._leaders() as leaders:
            node = await leaders.coordinator(self._group_id)
        await self._kill(node, draw)

    async def transactions_node(self, draw: float) -> None:
        """The same to the broker that coordinates the transactions of one input partition."""
        async with self._leaders() as leaders:
            inputs = await leaders.places([self._topics.invoke_requests])
            number = inputs[int(draw * len(inputs))].partition
            name = f"{self._group_id}.{self._topics.invoke_requests}.{number}"
            node = await leaders.coordinator(name, of_transactions=True)
        await self._kill(node, draw)

    async def lead_topics(self, _draw: float) -> None:
        """Every partition of the input and of the outputs gets another leader."""
        await self._pass_on(*self._topics.outputs, self._topics.invoke_requests)

    async def lead_group(self, _draw: float) -> None:
        """Every group gets another coordinator, which loads it, though no broker has failed."""
        await self._pass_on(OFFSETS)

    async def lead_transactions(self, _draw: float) -> None:
        """Every transactional id gets another coordinator, though no broker has failed."""
        await self._pass_on(TRANSACTIONS)

    async def _kill(self, node: int, draw: float) -> None:
        await self._broker.kill(node)
        await asyncio.sleep(0.5 + 6 * draw)  # the controller finds out after 3 s
        await self._broker.restart()
        async with self._leaders() as leaders:
            await leaders.until_whole()

    async def _pass_on(self, *topics: str) -> None:
        async with self._leaders() as leaders:
            await leaders.pass_on(topics)

    def _leaders(self) -> AbstractAsyncContextManager[Leaders]:
        return Leaders.of(self._broker.bootstrap_servers)
