"""What all partitions of a worker share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.control import Control
from agentstream.consumers.index import WINDOW
from agentstream.consumers.intake import Intake
from agentstream.consumers.membership import Membership
from agentstream.consumers.metrics.instruments import Metrics
from agentstream.consumers.quarantine import Quarantine
from agentstream.consumers.runs import Runs
from agentstream.consumers.tracing.lost import ReadDeltas, read_nothing
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.producers.deltas import DeltaPublisher
from agentstream.producers.outcomes import OutcomeEncoder
from agentstream.schemas.codec import DEFAULT_BOUNDS, Bounds
from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Built by the composition root; everything in it is open."""

    topics: Topics
    """The topics."""
    runs: Runs
    """Runs requests through harnesses."""
    agent_config: WorkerAgentConfig
    """What this worker allows, and its defaults."""
    deltas: DeltaPublisher
    """Publishes events."""
    encoder: OutcomeEncoder
    """Makes records of outcomes."""
    membership: Membership
    """Whether we are still in the group."""
    control: Control
    """What callers want cancelled."""
    quarantine: Quarantine
    """Where runs start that were lost with a worker."""
    slots: asyncio.Semaphore
    """One for each run that may be under way at once."""
    intake: Intake
    """What is held, waiting or running."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    metrics: Metrics = field(default_factory=Metrics.none)
    """What is counted and measured."""
    tracing: SpanMaker = field(default_factory=SpanMaker.none)
    """What spans are made with."""
    read_deltas: ReadDeltas = read_nothing
    """Reads again what a lost owner published."""
    bounds: Bounds = DEFAULT_BOUNDS
    """Bounds of a request."""
    index_window: int = WINDOW
    """Finished runs remembered per partition."""
