"""Dead letters: a record as it was, with the reason in headers; and the same record once more, as a new request."""

from agentstream.schemas.dead_letters import (
    CODE,
    PREFIX,
    RETRIABLE,
    RUN_ID,
    STAGE,
    TRUNCATED,
    is_reason,
    without_redrive,
)
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import REQUEST
from agentstream.schemas.records import OutgoingRecord, Record
from agentstream.schemas.redrive import Redrive
from agentstream.schemas.trace import TraceContext

_TRACE = frozenset({"traceparent", "tracestate", "baggage"})


def dead_letter(  # noqa: PLR0913 - the forensics are many, and each is one plain value
    record: Record,
    problem: Problem,
    trace: TraceContext,
    *,
    run_id: str,
    topic: str,
    group_id: str,
    deliveries: int,
    max_bytes: int,
) -> OutgoingRecord:
    """The record's key, value and headers as they were, plus Apache Kafka's `__dlq.errors.*` and our codes.

    `run_id` is the record's own run, not the one whose id it used again. What would be larger than `max_bytes` keeps
    its key (if short) and its coordinates: empty value, `dlq-truncated`.
    """
    where = record.position
    reason = [
        (f"{PREFIX}topic", where.topic.encode()),
        (f"{PREFIX}partition", str(where.partition).encode()),
        (f"{PREFIX}offset", str(where.offset).encode()),
        (f"{PREFIX}group", group_id.encode()),
        (f"{PREFIX}message", (problem.detail or problem.title).encode(errors="replace")),
        (f"{PREFIX}delivery.count", str(deliveries).encode()),
        (CODE, problem.code.encode()),
        (STAGE, problem.stage.encode()),
        (RETRIABLE, b"true" if problem.retriable else b"false"),
        (RUN_ID, run_id.encode()),
        (REQUEST, str(where).encode()),
        *trace.to_headers(),
    ]
    # A redriven record that fails again carries the reason of its first death: never write a header twice.
    kept = [(name, value) for name, value in record.headers if not is_reason(name) and name not in _TRACE]
    letter = OutgoingRecord(
        topic=topic, partition=where.partition, key=record.key, value=record.value, headers=(*kept, *reason)
    )
    if letter.size <= max_bytes:
        return letter
    key = record.key if len(record.key or b"") <= 1024 else None
    marked = [*reason, (TRUNCATED, str(record.size).encode())]
    return OutgoingRecord(topic=topic, partition=where.partition, key=key, value=b"", headers=marked)


def sent_again(record: Record, redrive: Redrive, *, topic: str, partition: int) -> OutgoingRecord:
    """The record of a dead letter as a new request: key, value and headers as they were, and the n-th time it is."""
    headers = (*without_redrive(record), *redrive.to_headers())
    return OutgoingRecord(topic=topic, partition=partition, key=record.key, value=record.value, headers=headers)
