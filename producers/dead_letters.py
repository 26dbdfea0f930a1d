"""Dead letters: a record as it was, with the reason in headers."""

from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import REQUEST
from agentstream.schemas.records import OutgoingRecord, Record
from agentstream.schemas.trace import TraceContext

TRUNCATED = "dlq-truncated"
_TRACE = frozenset({"traceparent", "tracestate", "baggage"})
_OWN_PREFIX = "__dlq.errors."
_OWN = frozenset({"dlq-error-code", "dlq-error-stage", "dlq-retriable", TRUNCATED, REQUEST})


def dead_letter(  # noqa: PLR0913 - the forensics are many, and each is one plain value
    record: Record, problem: Problem, trace: TraceContext, *, topic: str, group_id: str, deliveries: int, max_bytes: int
) -> OutgoingRecord:
    """The record's key, value and headers as they were, plus Apache Kafka's `__dlq.errors.*` and our codes.

    What would be larger than `max_bytes` keeps its key (if short) and its coordinates: empty value, `dlq-truncated`.
    """
    where = record.position
    reason = [
        (f"{_OWN_PREFIX}topic", where.topic.encode()),
        (f"{_OWN_PREFIX}partition", str(where.partition).encode()),
        (f"{_OWN_PREFIX}offset", str(where.offset).encode()),
        (f"{_OWN_PREFIX}group", group_id.encode()),
        (f"{_OWN_PREFIX}message", (problem.detail or problem.title).encode(errors="replace")),
        (f"{_OWN_PREFIX}delivery.count", str(deliveries).encode()),
        ("dlq-error-code", problem.code.encode()),
        ("dlq-error-stage", problem.stage.encode()),
        ("dlq-retriable", b"true" if problem.retriable else b"false"),
        (REQUEST, str(where).encode()),
        *trace.to_headers(),
    ]
    # A redriven record that fails again carries the reason of its first death: never write a header twice.
    kept = [
        (name, value)
        for name, value in record.headers
        if name not in _OWN and name not in _TRACE and not name.startswith(_OWN_PREFIX)
    ]
    letter = OutgoingRecord(
        topic=topic, partition=where.partition, key=record.key, value=record.value, headers=(*kept, *reason)
    )
    if letter.size <= max_bytes:
        return letter
    key = record.key if len(record.key or b"") <= 1024 else None
    marked = [*reason, (TRUNCATED, str(record.size).encode())]
    return OutgoingRecord(topic=topic, partition=where.partition, key=key, value=b"", headers=marked)
