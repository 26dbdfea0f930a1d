"""`agentstream show`."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import datetime

from pydantic import JsonValue

from agentstream.consumers.attempt_history import AttemptHistory, ToolCall
from agentstream.consumers.run_history import RunHistory, RunReader
from agentstream.infra.cli import locating
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.dead_letters import whole
from agentstream.infra.cli.exits import FAILED
from agentstream.infra.cli.screen import Screen, styled
from agentstream.infra.cli.tail_lines import instant
from agentstream.infra.printable import one_line, printable
from agentstream.infra.rendering import problem_line, shortened, tokens
from agentstream.schemas.codec import Rejection
from agentstream.schemas.records import Position
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult


def run_show(context: Context, run_id: str, *, last: int, as_json: bool) -> None:
    """Read, and show; exit code 1 if the run is nowhere."""
    locating.check_run_id(run_id)
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    screen = Screen()
    reader = RunReader(cluster.connection, cluster.topics, settings.group_id, last=last, progress=screen.note)
    found = asyncio.run(reader.read(run_id))
    if as_json:
        screen.json(document(found), pretty=True)
    else:
        style = styled if screen.for_people else _plain
        for text, how in lines(found):
            screen.out(style(text, how) if how else text)
        for note in found.notes:
            screen.note(note, "yellow")
    if found.where.state == "unknown":
        sys.exit(FAILED)


def document(found: RunHistory) -> dict[str, JsonValue]:
    """Everything as JSON. What is not known is left out; `notes` say why."""
    shown: dict[str, JsonValue] = {
        "run_id": found.where.run_id,
        "session_id": found.where.session_id,
        "state": found.where.state,
        "status": found.where.status,
        "trace_id": found.trace_id,
        "where": locating.document(found.where),
        "positions": {name: _position(position) for name, position in _positions(found)},
        "requested_at": None if found.requested is None else instant(found.requested.timestamp_ms),
        "request": _request(found),
        "attempts": [_attempt(each) for each in found.attempts],
        "messages": None
        if found.result
        else [each.model_dump(mode="json", exclude_none=True) for each in found.messages],
        "result": None if found.result is None else found.result.model_dump(mode="json", exclude_none=True),
        "dead_letter": None if found.dead_letter is None else whole(found.dead_letter),
        "notes": [*found.notes],
    }
    return {name: value for name, value in shown.items() if value is not None}


def _positions(found: RunHistory) -> Iterator[tuple[str, Position]]:
    where = found.where
    for name, position in (("request", where.request), ("result", where.result), ("dead_letter", where.dead_letter)):
        if position is not None:
            yield name, position


def _position(position: Position) -> JsonValue:
    return {"topic": position.topic, "partition": position.partition, "offset": position.offset}


def _request(found: RunHistory) -> JsonValue:
    match found.request:
        case None:
            return None
        case Rejection():
            return {"problem": found.request.problem.model_dump(mode="json", exclude_none=True)}
        case request:
            return request.model_dump(mode="json", exclude_none=True)


def _attempt(attempt: AttemptHistory) -> JsonValue:
    return {
        "claim": attempt.claim,
        "attempt": attempt.attempt,
        "attempt_id": attempt.attempt_id,
        "voided": attempt.voided,
        "status": attempt.status,
        "error": None if attempt.error is None else attempt.error.model_dump(mode="json", exclude_none=True),
        "started_at": attempt.started_at.isoformat(),
        "last_event_at": attempt.last_at.isoformat(),
        "first": _position(attempt.first),
        "last": _position(attempt.last),
        "events": dict(attempt.counts),
        "missing": attempt.missing,
        "tools": [
            {
                "name": call.name,
                "arguments": call.arguments,
                "content": call.content,
                "is_error": call.is_error,
                "duration_ms": call.duration_ms,
            }
            for call in attempt.tools.values()
        ],
    }


Line = tuple[str, str]
"""A line and its style, which may be empty."""


def lines(found: RunHistory) -> Iterator[Line]:
    """The run for people."""
    where = found.where
    yield f"{printable(where.run_id)}: {locating.sentence(where)}", "bold"
    for name, value in (("session", where.session_id), ("trace", found.trace_id), ("worker", where.owner)):
        if value is not None:
            yield f"{name}\t{one_line(value)}", ""
    yield from _request_lines(found)
    for attempt in found.attempts:
        yield from _attempt_lines(attempt)
    if found.result is not None:
        yield f"result\t{where.result}", "bold"
        yield from _result_lines(found.result)
    elif text := next((message.text for message in reversed(found.messages) if message.text), ""):
        yield "so far", "bold"
        yield from _indented(text)
    if found.dead_letter is not None:
        yield f"dead letter\t{where.dead_letter}", "bold"
        yield f"  {found.dead_letter.code}: {shortened(found.dead_letter.message)}", "red"


def _request_lines(found: RunHistory) -> Iterator[Line]:
    if found.where.request is None:
        return
    at = "" if found.requested is None else f"\t{instant(found.requested.timestamp_ms)}"
    yield f"request\t{found.where.request}{at}", "bold"
    match found.request:
        case Rejection(problem=problem):
            yield f"  {problem.code}: {shortened(problem.detail or problem.title)}", "red"
        case InvokeRequest() as request:
            count, last = len(request.messages), request.messages[-1]
            before = f" (the last of {count} messages)" if count > 1 else ""
            yield f"  {last.role}: {shortened(last.text) or '[no text]'}{before}", ""
            given = request.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
            for name in ("parameters", "metadata", "deadline", "ttl_ms", "parent_run_id"):
                if name in given:
                    yield f"  {name}: {shortened(given[name])}", ""
        case None:
            yield "  no longer on the log", "yellow"


def _attempt_lines(attempt: AttemptHistory) -> Iterator[Line]:
    took = (attempt.last_at - attempt.started_at).total_seconds()
    ended = attempt.status or "not ended"
    if attempt.error is not None:
        ended = f"{ended} ({attempt.error.code})"
    void = ", void: another one counts" if attempt.voided else ""
    yield f"attempt\t{attempt.claim}/{attempt.attempt}\t{ended}{void}", "yellow" if attempt.voided else "bold"
    yield f"  {_time(attempt.started_at)} … {_time(attempt.last_at)} ({took:.3f} s)", "dim"
    counted = ", ".join(f"{name} {count}" for name, count in attempt.counts.items())
    yield f"  {sum(attempt.counts.values())} events from {attempt.first} to {attempt.last}", "dim"
    yield f"  {counted}", "dim"
    if attempt.missing:
        yield f"  {attempt.missing} events before the last one are missing", "yellow"
    for call in attempt.tools.values():
        yield from _call_lines(call)


def _call_lines(call: ToolCall) -> Iterator[Line]:
    yield f"  → {printable(call.name)} {shortened(call.arguments)}", ""
    if call.duration_ms is None:
        yield "    it has not ended", "yellow"
        return
    sign, style = ("✗", "red") if call.is_error else ("←", "")
    yield f"  {sign} {shortened(call.content)} ({call.duration_ms} ms)", style


def _result_lines(result: InvokeResult) -> Iterator[Line]:
    told = [result.status if result.status == "completed" else f"{result.status} {problem_line(result)}"]
    if result.finish_reason is not None:
        told.append(f"finish reason {result.finish_reason}")
    told += [part for part in (tokens(result),) if part]
    if result.cost is not None:
        told.append(f"{result.cost.amount} {result.cost.currency}")
    if result.crashes:
        told.append(f"{result.crashes} attempts lost with a worker")
    if result.deltas == "partial":
        told.append("deltas partial")
    yield f"  {' · '.join(told)}", "green" if result.status == "completed" else "red"
    yield from _indented(result.text)


def _indented(text: str) -> Iterator[Line]:
    for each in printable(text).splitlines():
        yield f"  {each}", ""


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _plain(text: str, _style: str) -> str:
    return text
