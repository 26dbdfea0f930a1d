"""The one table of topics: names, sizes, retention."""

from dataclasses import dataclass

DEFAULT_PREFIX = "agent."
MAX_REQUEST_BYTES = 1_048_576
"""L of the design: the input topic's `max.message.bytes`, 1 MiB (Kafka's own default)."""
OUTPUT_MARGIN_BYTES = 65_536
"""Results and dead letters get L + 64 KiB: a dead letter adds headers to a record that may itself be of size L."""
DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicPlan:
    """How one topic is to be created."""

    name: str
    """Full name, with prefix."""
    partitions: int
    """Number of partitions."""
    max_message_bytes: int
    """Largest record batch the broker takes."""
    retention_ms: int
    """How long records are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Topics:
    """The topics under one prefix."""

    prefix: str = DEFAULT_PREFIX
    """What all names begin with, `agent.` unless the settings say otherwise."""

    @property
    def invoke_requests(self) -> str:
        """Requests, keyed by session id, written by callers."""
        return f"{self.prefix}invoke-requests"

    @property
    def control(self) -> str:
        """Control requests, one partition, read by every worker."""
        return f"{self.prefix}control"

    @property
    def stream_deltas(self) -> str:
        """Live events, keyed by session id."""
        return f"{self.prefix}stream-deltas"

    @property
    def assistant_messages(self) -> str:
        """Results, keyed by session id, transactional."""
        return f"{self.prefix}assistant-messages"

    @property
    def finished_runs(self) -> str:
        """Index of finished runs, keyed by run id, transactional."""
        return f"{self.prefix}finished-runs"

    @property
    def dead_letters(self) -> str:
        """Records that could not be decoded, admitted or finished, under their original key."""
        return f"{self.prefix}dead-letters"

    @property
    def evaluations(self) -> str:
        """What evaluators said of replayed runs, keyed by session id. No worker needs it."""
        return f"{self.prefix}evaluations"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics that need a partition for every partition of the input."""
        return (self.stream_deltas, self.assistant_messages, self.finished_runs, self.dead_letters)

    def plan(self, partitions: int, *, max_request_bytes: int = MAX_REQUEST_BYTES) -> tuple[TopicPlan, ...]:
        """All topics as they should be. Outputs first, input last: a request must never find an output missing."""
        large = max_request_bytes + OUTPUT_MARGIN_BYTES

        def of(name: str, count: int, size: int, days: int) -> TopicPlan:
            return TopicPlan(name=name, partitions=count, max_message_bytes=size, retention_ms=days * DAY_MS)

        return (
            of(self.stream_deltas, partitions, large, 7),
            of(self.assistant_messages, partitions, large, 30),
            of(self.finished_runs, partitions, MAX_REQUEST_BYTES, 30),
            of(self.dead_letters, partitions, large, 30),
            of(self.evaluations, partitions, MAX_REQUEST_BYTES, 30),
            of(self.control, 1, MAX_REQUEST_BYTES, 30),
            of(self.invoke_requests, partitions, max_request_bytes, 30),
        )
