"""From the spool, or from a data set, to a recording."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.replay.recording.assembling import assemble
from agentstream.consumers.replay.recording.capture import left_out, positions_of, ranges_of
from agentstream.consumers.replay.recording.files import About, RecordingWriter, clear_runs
from agentstream.consumers.replay.recording.manifest import Manifest, RecordingError, TopicRange
from agentstream.consumers.replay.recording.progress import Progress
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.splicing import splice
from agentstream.consumers.replay.recording.spool import RunRow, Spool
from agentstream.schemas.codec import decode_events
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.recordings import RecordedRun, SourceRecord
from agentstream.schemas.records import Position, Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics

NOTED_EVERY: Final = 500
"""Runs between two notes of how far writing has come: what a kill makes it write again at most."""


def write_recording(
    directory: Path,
    spool: Spool,
    rules: Rules,
    topics: Topics,
    about: About,
    told: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Write what a capture has read; killed at any point, call it again. The spool stays, for its owner to remove.

    Raises RecordingError, also where nothing matched, and OSError.
    """
    total = spool.count()
    if total == 0:
        raise RecordingError(_nothing(spool))
    with _writer(directory, spool, rules) as writer:
        before = writer.runs
        for row in spool.runs(before):
            writer.append(*rules.line(*_run(row, topics)))
            if writer.runs % NOTED_EVERY == 0 or writer.runs == total:
                writer.flush()
                spool.note("written", {"runs": writer.runs, "redacted": rules.counts})
                told(Progress(step="runs", done=writer.runs, total=total, since_begin=writer.runs - before, runs=total))
        about["created_at"] = began(spool)
        about["topic_prefix"] = topics.prefix
        about["topics"] = tuple(_topics_read(spool))
        about["left_out"] = left_out(spool)
        about["redactions"] = rules.report()
        return writer.finish(**about)


def begin(spool: Spool, typed: dict[str, JsonValue]) -> None:
    """Note when a capture was begun, and by which options."""
    with spool.transaction():
        spool.note("began", datetime.now(UTC).isoformat())
        spool.note("typed", typed)


def began(spool: Spool) -> datetime:
    """When the capture was begun: what `2h` is counted from, however often it is resumed."""
    noted = spool.noted("began")
    return datetime.fromisoformat(noted) if isinstance(noted, str) else datetime.now(UTC)


def _writer(directory: Path, spool: Spool, rules: Rules) -> RecordingWriter:
    noted = spool.noted("written")
    kept = 0
    if isinstance(noted, dict):
        kept = int(str(noted["runs"]))
    writer = RecordingWriter.open(directory, resume=True, keep=kept)
    if writer.runs < kept:
        # The file system lost what the spool says was written, as after a power cut: all is still in the spool.
        writer.close()
        clear_runs(directory)
        return RecordingWriter.open(directory)
    if isinstance(noted, dict):
        rules.restore(noted["redacted"])
    return writer


def _run(row: RunRow, topics: Topics) -> tuple[RecordedRun, bytes | None]:
    source = SourceRecord(
        topic=topics.invoke_requests, partition=row.partition, offset=row.offset, timestamp_ms=row.timestamp_ms
    )
    if spliced := splice(row, source):
        return spliced
    request = InvokeRequest.model_validate_json(row.request)
    result = None if row.result is None else InvokeResult.model_validate_json(row.result)
    where = Position(topic=topics.stream_deltas, partition=row.partition, offset=0)
    decoded = (decode_events(Record(position=where, timestamp_ms=0, key=None, value=value)) for value in row.events)
    # A record that cannot be read leaves a hole in `seq`, and the run says so.
    events = [found for found in decoded if isinstance(found, StreamEvents)]
    return assemble(request, result, events, source=source, turn=row.turn), None


def _topics_read(spool: Spool) -> list[TopicRange]:
    found: list[TopicRange] = []
    for step in ("requests", "results", "events"):
        reached = positions_of(spool, step) or {}
        for one in ranges_of(spool, step) or ():
            end = min(one.end, reached.get(one.partition, one.end))
            found.append(one.model_copy(update={"end": end}))
    return found


def _nothing(spool: Spool) -> str:
    ranges = ranges_of(spool, "requests") or []
    looked = sum(found.end - found.first for found in ranges)
    gone = sum(found.log_start for found in ranges)
    said = f"nothing matches: {looked:,} offsets of {ranges[0].topic if ranges else 'the requests'} were looked at"
    return f"{said}, {gone:,} before them are no longer on the log" if gone else said
