"""A made-up group coordinator: members that join, beat, fall silent and are replaced, by the classic eager protocol."""

from dataclasses import dataclass, field
from random import Random

from agentstream.consumers.coordinator import Standing
from tests.support.simulation_time import Clock

SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 3.0


@dataclass
class Member:
    """One member as the broker knows it."""

    worker: str
    seen: float
    generation: int = -1
    partitions: tuple[int, ...] = ()
    joined: bool = True


@dataclass
class Group:
    """Who owns which partition. Plain; every call first lets time do what it does."""

    clock: Clock
    rng: Random
    partitions: int
    members: dict[str, Member] = field(default_factory=dict)
    preferred: dict[int, str] = field(default_factory=dict)
    """By partition, the worker that the next rebalance gives it to if it can."""
    generation: int = 0
    _rebalancing_until: float | None = None
    _names: int = 0

    def owner(self, partition: int) -> str | None:
        """The worker to which the last finished rebalance gave it."""
        return next((each.worker for each in self.members.values() if partition in each.partitions), None)

    def rebalance(self) -> None:
        """Everybody must join anew."""
        if self._rebalancing_until is None:
            self._rebalancing_until = self.clock.now + SESSION_SECONDS
            for member in self.members.values():
                member.joined = False

    def join(self, worker: str, member_id: str | None) -> str:
        """Ask for a place; the answer is in `assignment`, some time later."""
        self._settle()
        if member_id is None or member_id not in self.members:
            self._names += 1
            member_id = f"{worker}-{self._names}"
            self.members[member_id] = Member(worker, self.clock.now)
        self.rebalance()
        self.members[member_id].seen = self.clock.now
        self.members[member_id].joined = True
        return member_id

    def assignment(self, member_id: str) -> tuple[int, tuple[int, ...]] | None:
        """What a member that waits was given; None as long as others are waited for."""
        self._settle()
        member = self.members.get(member_id)
        if member is None:
            return (-1, ())
        member.seen = self.clock.now
        if self._rebalancing_until is not None:
            return None
        return member.generation, member.partitions

    def heartbeat(self, generation: int, member_id: str) -> Standing:
        """As the broker answers one."""
        self._settle()
        member = self.members.get(member_id)
        if member is None or member.generation != generation:
            return Standing.REBALANCING
        member.seen = self.clock.now
        return Standing.MEMBER if self._rebalancing_until is None else Standing.REBALANCING

    def leave(self, member_id: str) -> None:
        """A member goes by itself."""
        if self.members.pop(member_id, None) is not None:
            self.rebalance()
        self._settle()

    def _settle(self) -> None:
        now = self.clock.now
        for member_id, member in list(self.members.items()):
            if now - member.seen > SESSION_SECONDS:
                del self.members[member_id]
                self.rebalance()
        if self._rebalancing_until is None:
            return
        if now >= self._rebalancing_until:
            self.members = {name: each for name, each in self.members.items() if each.joined}
        if self.members and all(member.joined for member in self.members.values()):
            self._assign()

    def _assign(self) -> None:
        self.generation += 1
        self._rebalancing_until = None
        given: dict[str, list[int]] = {member_id: [] for member_id in self.members}
        by_worker = {member.worker: member_id for member_id, member in self.members.items()}
        for partition in range(self.partitions):
            wanted = by_worker.get(self.preferred.get(partition, ""))
            kept = by_worker.get(self.owner(partition) or "")
            given[wanted or kept or self.rng.choice(sorted(given))].append(partition)
        for member_id, member in self.members.items():
            member.generation = self.generation
            member.partitions = tuple(given[member_id])
