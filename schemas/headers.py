"""Header names and what is written under them: CloudEvents 1.0 binary mode, W3C trace context, and our own few."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from uuid_utils import uuid7

from agentstream.schemas.records import Headers, Position
from agentstream.schemas.trace import TraceContext

CE_ID: Final = "ce_id"
CE_TYPE: Final = "ce_type"
CE_SUBJECT: Final = "ce_subject"
CE_SEQUENCE: Final = "ce_sequence"
CE_CAUSATION_ID: Final = "ce_causationid"
REQUEST: Final = "agentstream-request"
TRACE_TARGET: Final = "agentstream-trace-target"
"""On a request: one of the places that the worker's settings name for spans."""
REDRIVE_COUNT: Final = "dlq-redrive-count"
REDRIVE_OF: Final = "dlq-redrive-of"

INVOKE_REQUEST: Final = "agentstream.invoke-request.v1"
STREAM_EVENTS: Final = "agentstream.stream-events.v1"
INVOKE_RESULT: Final = "agentstream.invoke-result.v1"
FINISHED_RUN: Final = "agentstream.finished-run.v1"
CANCEL_RUN: Final = "agentstream.cancel-run.v1"
EVALUATION: Final = "agentstream.evaluation.v1"

SOURCE: Final = "/agentstream"

# The same on every record.
_SPECVERSION: Final = ("ce_specversion", b"1.0")
_SOURCE: Final = ("ce_source", SOURCE.encode())
_STREAM_EVENTS: Final = (CE_TYPE, STREAM_EVENTS.encode())
_JSON: Final = ("content-type", b"application/json")

_DELTA_BYTES: Final = 200
"""All headers of a delta record, but for the ids of attempt and run and the trace; of an attempt with fewer than 10^12
events."""


def last_wins(headers: Headers) -> Mapping[str, bytes]:
    """Headers by name; of duplicates the last wins, and a header without a value counts as empty."""
    return {name: value or b"" for name, value in headers}


def header_text(headers: Mapping[str, bytes], name: str) -> str | None:
    """A header as text, or None where it is absent, empty or not UTF-8."""
    raw = headers.get(name)
    if not raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def cloud_event(
    ce_type: str, run_id: str, trace: TraceContext, *, ce_id: str | None = None, request: Position | None = None
) -> list[tuple[str, bytes]]:
    """The full set of headers for everything but delta records.

    `ce_id` is a new uuid7 unless given. `request`, where known, adds where the request lies and makes the run the
    event's cause.
    """
    run = run_id.encode()
    caused = () if request is None else ((CE_CAUSATION_ID, run), (REQUEST, str(request).encode()))
    return [
        _SPECVERSION,
        (CE_ID, (ce_id or str(uuid7())).encode()),
        _SOURCE,
        (CE_TYPE, ce_type.encode()),
        ("ce_time", _instant(datetime.now(UTC))),
        (CE_SUBJECT, run),
        ("ce_correlationid", run),
        _JSON,
        *caused,
        *trace.to_headers(),
    ]


def _instant(now: datetime) -> bytes:
    # `isoformat` asks the time zone, only for what it says to be replaced by `Z`: 1.2 µs, twice a run. This takes 0.6.
    day = (now.year, now.month, now.day)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (*day, now.hour, now.minute, now.second, now.microsecond // 1000)


class DeltaHeaders:
    """The short set for an attempt's delta records: only what is required, since there may be thousands a second; and
    what the caller wants carried on, if it does.

    All but two headers of an attempt are the same. Made for each record they took 0.45 µs, so they take 0.2.
    """

    __slots__ = ("_attempt", "_subject", "_trace", "attempt_id")

    def __init__(self, run_id: str, attempt_id: str, trace: TraceContext) -> None:
        self.attempt_id = attempt_id
        """The attempt."""
        self._attempt = attempt_id.encode()
        self._subject = (CE_SUBJECT, run_id.encode())
        self._trace = trace.to_headers()

    @property
    def size(self) -> int:
        """Bytes that they take in each record, at most."""
        names_and_ids = _DELTA_BYTES + len(self._attempt) + len(self._subject[1])
        return names_and_ids + sum([len(name) + len(value) + 10 for name, value in self._trace])

    def of(self, first_seq: int) -> list[tuple[str, bytes]]:
        """Those of the record that begins with this event."""
        seq = b"%d" % first_seq
        return [
            _SPECVERSION,
            (CE_ID, b"%b-%b" % (self._attempt, seq)),
            _SOURCE,
            _STREAM_EVENTS,
            self._subject,
            (CE_SEQUENCE, seq),
            *self._trace,
        ]
