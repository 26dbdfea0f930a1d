"""A dead letter as it lies on its topic: the record as it was, and the reason in headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentstream.schemas.codec import Rejection, decode_request, position_id
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.headers import REDRIVE_COUNT, REDRIVE_OF, REQUEST, header_text, last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.redrive import Redrive, coordinates_id, redrives

PREFIX: Final = "__dlq.errors."
"""Apache Kafka's own names begin so."""
CODE: Final = "dlq-error-code"
STAGE: Final = "dlq-error-stage"
RETRIABLE: Final = "dlq-retriable"
RUN_ID: Final = "dlq-run-id"
TRUNCATED: Final = "dlq-truncated"
_REASON: Final = frozenset({CODE, STAGE, RETRIABLE, RUN_ID, TRUNCATED, REQUEST})


def is_reason(header: str) -> bool:
    """Whether a header is the dead letter's, and was not the record's own."""
    return header in _REASON or header.startswith(PREFIX)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A dead letter and the record that it is about."""

    position: Position
    """Where the dead letter lies."""
    timestamp_ms: int
    """When it was written, ms since 1970."""
    record: Record
    """The record as it was, at its own position; its own timestamp is not known and stands as the dead letter's."""
    code: str
    """Why; one of `ErrorCode`, or that of a newer worker."""
    stage: str
    """Where on the record's path."""
    message: str
    """Why, in words."""
    retriable: bool
    """Whether the same request may succeed if sent again."""
    group: str
    """The workers that gave it up."""
    deliveries: str
    """How often it was delivered to them."""
    run_id: str | None
    """The run it was; None in dead letters of older workers."""
    truncated: int | None
    """Bytes of the record if it was too large to copy: then `record` has no value and no headers."""

    @property
    def redrives(self) -> int:
        """How often it was sent again before it died."""
        return redrives(last_wins(self.record.headers))

    @property
    def session_id(self) -> str:
        """The session of its run."""
        return decode_request(self.record).session_id or ""

    def redriven(self, record: Record) -> Redrive:
        """What it will be when `record`, its own or the one its coordinates lead to, is sent once more."""
        headers = last_wins(record.headers)
        count = redrives(headers)
        first = header_text(headers, REDRIVE_OF) if count else None
        return Redrive(original_id=first or self.run_id or _named(record), count=count + 1)


def decode_dead_letter(record: Record) -> DeadLetter | Problem:
    """The dead letter, or why it is none: records of other programs may lie on the topic. Never raises."""
    headers = last_wins(record.headers)
    code, original = header_text(headers, CODE), _original(headers)
    if code is None or original is None:
        missing = CODE if code is None else f"{PREFIX}topic, {PREFIX}partition or {PREFIX}offset"
        return Problem.of(ErrorCode.SCHEMA_INVALID, f"no dead letter of agentstream: no usable header {missing}")
    truncated = header_text(headers, TRUNCATED)
    return DeadLetter(
        position=record.position,
        timestamp_ms=record.timestamp_ms,
        record=Record(
            position=original,
            timestamp_ms=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=tuple((name, value) for name, value in record.headers if not is_reason(name)),
        ),
        code=code,
        stage=header_text(headers, STAGE) or "",
        message=header_text(headers, f"{PREFIX}message") or "",
        retriable=header_text(headers, RETRIABLE) == "true",
        group=header_text(headers, f"{PREFIX}group") or "",
        deliveries=header_text(headers, f"{PREFIX}delivery.count") or "",
        run_id=header_text(headers, RUN_ID),
        truncated=_number(truncated or ""),
    )


def without_redrive(record: Record) -> tuple[tuple[str, bytes], ...]:
    """The record's headers without those that say it was sent again."""
    return tuple((name, value) for name, value in record.headers if name not in (REDRIVE_COUNT, REDRIVE_OF))


def _original(headers: Mapping[str, bytes]) -> Position | None:
    topic = header_text(headers, f"{PREFIX}topic")
    partition = _number(header_text(headers, f"{PREFIX}partition") or "")
    offset = _number(header_text(headers, f"{PREFIX}offset") or "")
    if topic is None or partition is None or offset is None:
        return None
    return Position(topic=topic, partition=partition, offset=offset)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _named(record: Record) -> str:
    """The run that the record names; where it names none, what its coordinates give."""
    found = decode_request(record)
    named = found.run_id if isinstance(found, Rejection) else found.id
    # The decoder's own makeshift has the record's timestamp in it, and that is not known any more.
    return coordinates_id(record.position) if named in (None, position_id(record)) else str(named)
