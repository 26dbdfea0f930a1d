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
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    run = run_id.encode()
    headers = [
        _SPECVERSION,
        (CE_ID, (ce_id or str(uuid7())).encode()),
        _SOURCE,
        (CE_TYPE, ce_type.encode()),
        ("ce_time", now.encode()),
        (CE_SUBJECT, run),
        ("ce_correlationid", run),
        _JSON,
    ]
    if request is not None:
        headers += [(CE_CAUSATION_ID, run), (REQUEST, str(request).encode())]
    return headers + trace.to_headers()


def delta_headers(run_id: str, attempt_id: str, first_seq: int, trace: TraceContext) -> list[tuple[str, bytes]]:
    """The short set for delta records: only what is required, since there may be thousands a second; and what the
    caller wants carried on, if it does."""
    return [
        _SPECVERSION,
        (CE_ID, f"{attempt_id}-{first_seq}".encode()),
        _SOURCE,
        _STREAM_EVENTS,
        (CE_SUBJECT, run_id.encode()),
        (CE_SEQUENCE, str(first_seq).encode()),
        *trace.to_headers(),
    ]
