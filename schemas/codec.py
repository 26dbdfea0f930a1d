"""Records to values. Total: whatever stands in a record, the answer is a value, never an exception.

    decode_delivery(Record) -> Delivery | Rejection          the input topic, `decode_request` for the request alone
    decode_control(Record)  -> CancelRun | Rejection         the control topic
    decode_result(Record)   -> InvokeResult | Problem        the output topics, see `readers`
    decode_events(Record)   -> StreamEvents | Problem
    decode_finished(Record) -> FinishedRun | Problem

`ce_type`: absent, or a type that is not ours (a gateway may stamp its own), says nothing, and the body decides. A type
of ours that is not the topic's, such as `agentstream.invoke-request.v2`, is refused with `unsupported_version`.
`ce_specversion` and all other headers are never a reason to refuse.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final
from uuid import uuid5

from agentstream.schemas.base import MAX_SESSION_ID, RUN_ID_PATTERN
from agentstream.schemas.bounds import DEFAULT_BOUNDS, Bounds, Json
from agentstream.schemas.errors import ErrorCode, Problem, Stage
from agentstream.schemas.headers import CANCEL_RUN, CE_ID, INVOKE_REQUEST, TRACE_TARGET, header_text, last_wins
from agentstream.schemas.parsing import is_text, parse_object
from agentstream.schemas.readers import decode_events, decode_finished, decode_result, wrong_type
from agentstream.schemas.records import Record
from agentstream.schemas.redrive import RUN_ID_NAMESPACE, Redrive, redrive_of
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.validation import validated

__all__ = [
    "DEFAULT_BOUNDS",
    "RUN_ID_NAMESPACE",
    "Bounds",
    "Delivery",
    "Rejection",
    "body_hash",
    "decode_control",
    "decode_delivery",
    "decode_events",
    "decode_finished",
    "decode_request",
    "decode_result",
    "position_id",
    "session_of_key",
]

MAX_KEY_BYTES: Final = 256
_RUN_ID = re.compile(RUN_ID_PATTERN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A record that is no request: what is wrong, and what is known of it all the same."""

    problem: Problem
    """What is wrong."""
    run_id: str | None
    """The run that the body or `ce_id` names, where one of them does: then a failed result is owed too."""
    session_id: str
    """The session as far as it can be told, at most 256 characters."""
    fallback_id: str
    """The uuid5 of the record's position and timestamp: its id where it names no run."""
    redrive_of: str | None = None
    """The run that this one was sent again for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A request as it was delivered."""

    request: InvokeRequest
    """The request with `id` and `session_id` filled in."""
    redrive_of: str | None = None
    """The run that this one was sent again for."""
    trace_target: str | None = None
    """The place that its headers name for its spans."""


def decode_request(record: Record, *, bounds: Bounds = DEFAULT_BOUNDS) -> InvokeRequest | Rejection:
    """The request of `decode_delivery`, or the rejection. Never raises."""
    found = decode_delivery(record, bounds=bounds)
    return found.request if isinstance(found, Delivery) else found


def decode_delivery(record: Record, *, bounds: Bounds = DEFAULT_BOUNDS) -> Delivery | Rejection:
    """The request with `id` and `session_id` filled in, or the rejection. Never raises.

    `id`: the body's, else a valid `ce_id`, else the uuid5 of the position, so that a redelivery keeps it; of a request
    that was sent again, the uuid5 of that id and of how often. `session_id`: the body's, else the record's key, else
    the run id.
    """
    headers = last_wins(record.headers)
    parsed = parse_object(record.value, bounds)
    named = _named_run(parsed.document, headers)
    problem = wrong_type(headers, INVOKE_REQUEST) or parsed.problem
    run_id, original = named, None
    redrive = redrive_of(headers, named)
    if isinstance(redrive, Redrive):
        run_id, original = redrive.run_id, redrive.original_id
    elif redrive is not None:
        problem = problem or redrive
    if problem is None and parsed.document is not None:
        outcome = _supported(validated(InvokeRequest, parsed.document))
        if isinstance(outcome, InvokeRequest):
            known = run_id or position_id(record)
            request = _identified(outcome, known, outcome.session_id or session_of_key(record.key) or known)
            return Delivery(request=request, redrive_of=original, trace_target=header_text(headers, TRACE_TARGET))
        problem = outcome
    return replace(_rejection(record, problem, run_id, parsed.document), redrive_of=original)


def decode_control(record: Record, *, bounds: Bounds = DEFAULT_BOUNDS) -> CancelRun | Rejection:
    """The control request, or the rejection. Never raises. No result is owed for it: `run_id` is always None.

    Another type of ours is a newer kind of control record: a worker that does not know it skips it.
    """
    headers = last_wins(record.headers)
    parsed = parse_object(record.value, bounds)
    problem = wrong_type(headers, CANCEL_RUN) or parsed.problem
    if problem is None and parsed.document is not None:
        outcome = validated(CancelRun, parsed.document)
        if isinstance(outcome, CancelRun):
            return outcome
        problem = outcome
    return _rejection(record, problem, None, parsed.document)


def body_hash(value: bytes | None) -> str:
    """First 16 hex digits of the value's SHA-256: tells a redelivery from another body. None counts as empty."""
    return sha256(value or b"").hexdigest()[:16]


def position_id(record: Record) -> str:
    """The run id of a record that names none: the same at every delivery, another one after a topic was made anew."""
    return str(uuid5(RUN_ID_NAMESPACE, f"{record.position}/{record.timestamp_ms}"))


def session_of_key(key: bytes | None) -> str | None:
    """The session that a record's key stands for; None for an absent or empty key."""
    if not key:
        return None
    if len(key) <= MAX_KEY_BYTES:
        try:
            return key.decode()
        except UnicodeDecodeError:
            pass  # bytes that are no text, such as a number's: named by their hash, like a long key
    return f"key-{sha256(key).hexdigest()[:32]}"


def _named_run(document: Json | None, headers: Mapping[str, bytes]) -> str | None:
    """A valid run id of the body, else of `ce_id`."""
    name = None if document is None else document.get("id")
    if isinstance(name, str) and _RUN_ID.fullmatch(name):
        return name
    name = header_text(headers, CE_ID)
    return name if name is not None and _RUN_ID.fullmatch(name) else None


def _identified(request: InvokeRequest, run_id: str, session_id: str) -> InvokeRequest:
    """The request with these ids; as a rule it has them, and is not copied."""
    if request.id == run_id and request.session_id == session_id:
        return request
    return request.with_values(id=run_id, session_id=session_id)


def _supported(outcome: InvokeRequest | Problem) -> InvokeRequest | Problem:
    if isinstance(outcome, InvokeRequest) and outcome.resume is not None:
        detail = "resume: paused runs are not supported; leave it out and send the history as messages"
        return Problem.of(ErrorCode.UNSUPPORTED, detail, stage=Stage.DECODE)
    return outcome


def _rejection(record: Record, problem: Problem | None, run_id: str | None, document: Json | None) -> Rejection:
    fallback_id = position_id(record)
    named = (document or {}).get("session_id")
    if not isinstance(named, str) or not 0 < len(named) <= MAX_SESSION_ID or not is_text(named):
        named = session_of_key(record.key)
    return Rejection(
        problem=problem or Problem.of(ErrorCode.MALFORMED_JSON),
        run_id=run_id,
        session_id=named or run_id or fallback_id,
        fallback_id=fallback_id,
    )
