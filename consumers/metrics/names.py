"""Every metric and label of ours, and the standard ones that we use: one place for dashboards, alerts and documents.

Standard names: https://github.com/open-telemetry/semantic-conventions, docs/messaging/messaging-metrics.md and
docs/gen-ai/gen-ai-metrics.md. Their durations are in seconds, with the bucket boundaries given there.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "histogram", "gauge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricName:
    """One metric."""

    name: str
    """As OpenTelemetry has it, with dots."""
    kind: Kind
    """What it is."""
    unit: str
    """UCUM: s, By, {run}."""
    description: str
    """One sentence."""
    buckets: tuple[float, ...] | None = None
    """Advice for the boundaries of a histogram; None: the SDK's."""

    @property
    def prometheus(self) -> str:
        """The name in Prometheus' format, without a histogram's `_bucket`, `_sum` and `_count`."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        total = "_total" if self.kind == "counter" else ""
        return self.name.replace(".", "_") + unit + total


# https://github.com/open-telemetry/semantic-conventions/blob/main/docs/gen-ai/gen-ai-metrics.md
_MODEL_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = (
    1,
    4,
    16,
    64,
    256,
    1_024,
    4_096,
    16_384,
    65_536,
    262_144,
    1_048_576,
    4_194_304,
    16_777_216,
    67_108_864,
)
_RUN_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1_800, 3_600)
"""A run may take from milliseconds to an hour: the messaging convention's boundaries end at ten seconds."""
_SHORT_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

PROCESS_DURATION: Final = MetricName(
    name="messaging.process.duration",
    kind="histogram",
    unit="s",
    description="From a run's turn until its result is committed.",
    buckets=_RUN_SECONDS,
)
CONSUMED: Final = MetricName(
    name="messaging.client.consumed.messages",
    kind="counter",
    unit="{message}",
    description="Request records taken from the input topic.",
)
MODEL_DURATION: Final = MetricName(
    name="gen_ai.client.operation.duration",
    kind="histogram",
    unit="s",
    description="Model calls and tool calls.",
    buckets=_MODEL_SECONDS,
)
TOKEN_USAGE: Final = MetricName(
    name="gen_ai.client.token.usage",
    kind="histogram",
    unit="{token}",
    description="Tokens per model call, input (cached ones included) and output.",
    buckets=_TOKENS,
)
TIME_TO_FIRST_CHUNK: Final = MetricName(
    name="gen_ai.client.operation.time_to_first_chunk",
    kind="histogram",
    unit="s",
    description="From the beginning of a model call to its first piece.",
    buckets=_MODEL_SECONDS,
)
RUNS: Final = MetricName(
    name="agentstream.runs", kind="counter", unit="{run}", description="Results committed, by status and error code."
)
DEAD_LETTERS: Final = MetricName(
    name="agentstream.dead_letters", kind="counter", unit="{record}", description="Dead letters committed, by code."
)
DUPLICATES: Final = MetricName(
    name="agentstream.duplicates", kind="counter", unit="{record}", description="Requests dropped: known already."
)
RETRIES: Final = MetricName(
    name="agentstream.retries", kind="counter", unit="{attempt}", description="Attempts tried again, by the code."
)
VOIDED: Final = MetricName(
    name="agentstream.attempts.voided",
    kind="counter",
    unit="{attempt}",
    description="Attempts whose events do not count: retried, drained, moved, or lost with a worker.",
)
TAKEOVERS: Final = MetricName(
    name="agentstream.takeovers",
    kind="counter",
    unit="{claim}",
    description="Partitions claimed that their former owner had not released.",
)
CLAIMS: Final = MetricName(name="agentstream.claims", kind="counter", unit="{claim}", description="Partitions claimed.")
TRANSACTION_DURATION: Final = MetricName(
    name="agentstream.transaction.duration",
    kind="histogram",
    unit="s",
    description="Transactions that carry results and offsets, failed ones with error.type.",
    buckets=_SHORT_SECONDS,
)
TRANSACTION_RESULTS: Final = MetricName(
    name="agentstream.transaction.outcomes",
    kind="histogram",
    unit="{outcome}",
    description="Outcomes per committed transaction; 0 where only marks or a claim were written.",
    buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500),
)
COMMIT_WAIT: Final = MetricName(
    name="agentstream.commit.wait",
    kind="histogram",
    unit="s",
    description="From an outcome being ready until its transaction is committed.",
    buckets=_SHORT_SECONDS,
)
DELTA_DURATION: Final = MetricName(
    name="agentstream.deltas.duration",
    kind="histogram",
    unit="s",
    description="From a delta record being handed over until the brokers have it.",
    buckets=_SHORT_SECONDS,
)
IN_FLIGHT: Final = MetricName(
    name="agentstream.runs.in_flight", kind="gauge", unit="{run}", description="Runs under way."
)
WAITING: Final = MetricName(
    name="agentstream.runs.waiting", kind="gauge", unit="{run}", description="Requests taken that wait, by partition."
)
LAG: Final = MetricName(
    name="agentstream.lag",
    kind="gauge",
    unit="{record}",
    description="Records between what is finished and the log's end, by partition.",
)
OLDEST_OPEN: Final = MetricName(
    name="agentstream.runs.oldest_age",
    kind="gauge",
    unit="s",
    description="Age of the oldest request that is held and has no result.",
)
WORK_WAITING: Final = MetricName(
    name="agentstream.work.waiting",
    kind="gauge",
    unit="s",
    description="Seconds of work that wait: requests times the learned duration of their like.",
)
PARTITIONS: Final = MetricName(
    name="agentstream.partitions", kind="gauge", unit="{partition}", description="Partitions, by state: open or closed."
)
HELD_BYTES: Final = MetricName(
    name="agentstream.held", kind="gauge", unit="By", description="Bytes of requests held, waiting or running."
)
DELTAS_DROPPED: Final = MetricName(
    name="agentstream.deltas.dropped",
    kind="counter",
    unit="{attempt}",
    description="Attempts whose deltas end early: the topic did not keep up, or refused a record.",
)
SIDECAR_RESTARTS: Final = MetricName(
    name="agentstream.sidecar.restarts",
    kind="counter",
    unit="{process}",
    description="Sidecar processes started after the first, by harness.",
)
SIDECAR_MEMORY: Final = MetricName(
    name="agentstream.sidecar.memory",
    kind="gauge",
    unit="By",
    description="Resident memory of the sidecar, by harness.",
)

ALL: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, MetricName))
"""All of them: what the dashboard and the alert rules may name, besides the SDK's own otel_sdk_* (tested)."""

STATUS: Final = "agentstream.run.status"
HARNESS: Final = "agentstream.harness"
REASON: Final = "agentstream.reason"
STATE: Final = "agentstream.partition.state"
OTHER_PARTITIONS: Final = "other"
MAX_PARTITION_LABELS: Final = 100
"""A backend keeps a series per label value and worker; above this many the rest is one, `other`."""
