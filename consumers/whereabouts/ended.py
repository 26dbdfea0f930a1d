"""The runs that have ended: their line in the index, and the result or dead letter that came with it."""

from dataclasses import replace

from agentstream.consumers.whereabouts.answer import Whereabouts
from agentstream.consumers.whereabouts.look import Look
from agentstream.schemas.codec import decode_result
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import CE_SUBJECT, REQUEST, header_text, last_wins
from agentstream.schemas.records import Position, Record
from agentstream.schemas.results import FinishedRun

SLACK_MS = 120_000
"""A result and its line of the index are written within one transaction: at most so far apart."""


async def find_ended(look: Look, run_id: str, partition: int | None) -> Whereabouts | None:
    """How a run ended, if the index has it. `partition`: its request's, if that is known."""
    key = run_id.encode()
    async with look.scan(look.topics.finished_runs) as scan:
        start = None if partition is None else {partition: (await scan.beginnings())[partition]}
        line, scanned = await scan.first(start, lambda record: record.key == key)
    if line is not None:
        return await _ended(look, run_id, line)
    if not scanned.whole:
        look.notes.append(f"only the last {look.last} finished runs of a partition were looked at (--last)")
    return None


async def _ended(look: Look, run_id: str, record: Record) -> Whereabouts:
    line = FinishedRun.model_validate_json(record.value or b"")
    request = Position(topic=look.topics.invoke_requests, partition=record.position.partition, offset=line.offset)
    found = Whereabouts(
        run_id=run_id,
        state="refused" if line.status == "rejected" else "finished",
        session_id=line.session_id or None,
        status=line.status,
        request=request,
    )
    since_ms = record.timestamp_ms - SLACK_MS
    if line.status in ("rejected", "failed"):
        found = await _with_dead_letter(look, found, request, since_ms)
    return found if line.status == "rejected" else await _with_result(look, found, request, since_ms)


async def _with_dead_letter(look: Look, found: Whereabouts, request: Position, since_ms: int) -> Whereabouts:
    letter = await look.first_since(
        since_ms,
        look.topics.dead_letters,
        request.partition,
        lambda each: header_text(last_wins(each.headers), REQUEST) == str(request),
    )
    if letter is None:
        return found
    code = header_text(last_wins(letter.headers), "dlq-error-code")
    return replace(found, dead_letter=letter.position, error=code)


async def _with_result(look: Look, found: Whereabouts, request: Position, since_ms: int) -> Whereabouts:
    record = await look.first_since(
        since_ms,
        look.topics.assistant_messages,
        request.partition,
        lambda each: header_text(last_wins(each.headers), CE_SUBJECT) == found.run_id,
    )
    if record is None:
        look.notes.append("its result is no longer on the log, or lies further back than was looked")
        return found
    found = replace(found, result=record.position)
    result = decode_result(record)
    if isinstance(result, Problem):
        return found
    error = None if result.error is None else str(result.error.code)
    attempt = result.attempt or None
    return replace(found, session_id=result.session_id, claim=result.claim, attempt=attempt, error=error)
