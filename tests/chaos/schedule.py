"""What goes wrong, and when: drawn from a seed before anything runs, and always the same for the same seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KINDS = ("kill", "stop", "term", "join", "leave", "storm", "broker")
"""What one broker and any workers suffer."""
NETWORK_KINDS = (
    *("cut_silent", "cut_reset", "cut_forgotten", "cut_group", "cut_deaf", "cut_mute", "cut_transactions"),
    *("cut_lost", "cut_group_reset", "cut_one", "cut_and_kill"),
)
"""What the network between one worker and the brokers suffers."""
CLUSTER_KINDS = ("node", "group_node", "transactions_node", "lead_topics", "lead_group", "lead_transactions")
"""What the brokers of a cluster suffer one by one."""
WEIGHTS: Mapping[str, int] = {"kill": 5, "stop": 4, "term": 3, "join": 2, "leave": 2, "cut_silent": 2, "node": 2}
"""How often each kind comes, compared to the others: once where it is not named."""
ALWAYS = 3
"""So many kinds come at least once, however short the schedule."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a schedule."""

    after_s: float
    """Seconds after the fault before it has healed."""
    kind: str
    """One of KINDS, NETWORK_KINDS or CLUSTER_KINDS."""
    draw: float
    """From 0 to 1: which worker or broker, how long."""

    def __str__(self) -> str:
        return f"+{self.after_s:.1f}s {self.kind}({self.draw:.2f})"


@dataclass(frozen=True, kw_only=True)
class Done:
    """One fault as it happened."""

    fault: Fault
    """What the schedule said."""
    began_at: float
    """When it was about to be done, by `time.monotonic()`."""
    healed_at: float
    """When nothing of it was left: the process runs on, or another one was started in its place."""


def schedule(seed: int, *, faults: int, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """The faults of a seed. Each kind comes at least once where there is room for all, else the first three do."""
    rng = random.Random(seed)
    sure = kinds if faults >= 2 * len(kinds) else kinds[:ALWAYS]
    weights = [WEIGHTS.get(kind, 1) for kind in kinds]
    drawn = [*sure, *rng.choices(kinds, weights, k=max(0, faults - len(sure)))][:faults]
    rng.shuffle(drawn)
    return [Fault(after_s=rng.uniform(0.5, 4.0), kind=kind, draw=rng.random()) for kind in drawn]
