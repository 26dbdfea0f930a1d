"""What the topics are, what they should be, and the steps between. Decisions only; `topic_admin` asks and acts.

plan_topics(topics, found, brokers, partitions) -> TopicsPlan: steps in order, what needs consent, what is refused
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentstream.schemas.topics import MAX_REQUEST_BYTES, TopicPlan, Topics

DEFAULT_PARTITIONS = 8
REPLICATION = 3
MIN_IN_SYNC = 2
_KEPT = ("retention.ms", "cleanup.policy")
"""Set when a topic is created, then left to the operator: shown where they differ, never changed."""

ORDER_WARNING = (
    "growing the input from {before} to {after} partitions moves most sessions to another partition: a session's runs "
    "on both sides of the change are not in order. Let the workers finish what is waiting first, if that matters."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicFound:
    """A topic as the cluster has it."""

    partitions: int
    """Its number of partitions."""
    replication: int
    """Replicas of its first partition."""
    configs: Mapping[str, str]
    """Its settings, the brokers' defaults included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateTopic:
    """A topic that is missing."""

    name: str
    """The topic."""
    partitions: int
    """How many partitions it gets."""
    replication: int
    """How many replicas each."""
    configs: Mapping[str, str]
    """Its settings."""

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.configs.items())
        many = "s" if self.partitions > 1 else ""
        return f"create {self.name}: {self.partitions} partition{many}, replication {self.replication}, {settings}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowTopic:
    """A topic with too few partitions."""

    name: str
    """The topic."""
    before: int
    """How many it has."""
    after: int
    """How many it gets."""

    def __str__(self) -> str:
        return f"grow {self.name} from {self.before} to {self.after} partitions"


@dataclass(frozen=True, kw_only=True, slots=True)
class SetConfig:
    """A setting that the engine's promises need and that differs."""

    name: str
    """The topic."""
    key: str
    """The setting."""
    before: str | None
    """Its value now."""
    after: str
    """Its value then."""

    def __str__(self) -> str:
        return f"set {self.key} of {self.name} from {self.before} to {self.after}"


Step = CreateTopic | GrowTopic | SetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicsPlan:
    """What is to be done."""

    partitions: int
    """Partitions of every topic but `control`, once it is done."""
    steps: tuple[Step, ...] = ()
    """In the order in which they must happen: outputs first, the input last."""
    notes: tuple[str, ...] = ()
    """What differs and is left as it is."""
    consent: str | None = None
    """Why `--yes` is needed."""
    refusal: str | None = None
    """Why nothing is done, and what to do instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """What the plan is made from."""

    topics: Topics
    found: Mapping[str, TopicFound]
    brokers: int
    partitions: int
    max_request_bytes: int
    changes: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_topics(
    topics: Topics,
    found: Mapping[str, TopicFound],
    *,
    brokers: int,
    partitions: int | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> TopicsPlan:
    """Decide. `partitions` None: as many as there are, 8 where there are none. `brokers`: nodes that are alive."""
    keyed = (*topics.outputs, topics.invoke_requests)
    counts = {name: found[name].partitions for name in keyed if name in found}
    target = partitions or max(counts.values(), default=DEFAULT_PARTITIONS)
    if refusal := _refusal(counts, target, asked=partitions is not None):
        return TopicsPlan(partitions=target, refusal=refusal)
    wish = _Wish(topics=topics, found=found, brokers=brokers, partitions=target, max_request_bytes=max_request_bytes)
    for wanted in topics.plan(target, max_request_bytes=max_request_bytes):
        _compare(wanted, wish)
    before = counts.get(topics.invoke_requests, target)
    return TopicsPlan(
        partitions=target,
        steps=tuple(wish.changes),
        notes=tuple(wish.notes),
        consent=ORDER_WARNING.format(before=before, after=target) if before < target else None,
    )


def _refusal(counts: Mapping[str, int], target: int, *, asked: bool) -> str | None:
    if not counts:
        return None
    most = max(counts.values())
    if target < most:
        holders = ", ".join(name for name, count in counts.items() if count == most)
        return f"Kafka takes no partitions away, and there are {most} of {holders}: use --partitions {most} or more"
    if len(set(counts.values())) > 1 and not asked:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        return (
            f"the partition counts are unequal ({shown}), and workers keep partitions closed that an output lacks: "
            f"make them equal with --partitions {most}"
        )
    return None


def _compare(wanted: TopicPlan, wish: _Wish) -> None:
    replication = max(1, min(REPLICATION, wish.brokers))
    there = wish.found.get(wanted.name)
    if there is None:
        configs = _configs(wanted, replication)
        wish.changes.append(
            CreateTopic(name=wanted.name, partitions=wanted.partitions, replication=replication, configs=configs)
        )
        return
    if there.partitions < wanted.partitions:
        wish.changes.append(GrowTopic(name=wanted.name, before=there.partitions, after=wanted.partitions))
    elif there.partitions > wanted.partitions:
        wish.notes.append(f"{wanted.name} has {there.partitions} partitions, and {wanted.partitions} is enough")
    if there.replication < replication:
        wish.notes.append(
            f"{wanted.name} has replication {there.replication}, and the cluster allows {replication}: "
            "kafka-reassign-partitions.sh changes it"
        )
    for key, value in _configs(wanted, there.replication).items():
        now = there.configs.get(key)
        if now == value:
            continue
        if key in _KEPT:
            wish.notes.append(f"{wanted.name} has {key}={now}, agentstream's own would be {value}")
        else:
            wish.changes.append(SetConfig(name=wanted.name, key=key, before=now, after=value))


def _configs(wanted: TopicPlan, replication: int) -> dict[str, str]:
    """Settings of a topic. With fewer than three replicas, two in sync would stop writes when one broker restarts."""
    return {
        "max.message.bytes": str(wanted.max_message_bytes),
        "retention.ms": str(wanted.retention_ms),
        "cleanup.policy": "delete",
        "min.insync.replicas": str(MIN_IN_SYNC if replication >= REPLICATION else 1),
        "unclean.leader.election.enable": "false",
    }
