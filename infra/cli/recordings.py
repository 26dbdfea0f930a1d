"""`agentstream recording show`."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.replay.recording.files import RecordingReader, status_of
from agentstream.consumers.replay.recording.manifest import Manifest
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.screen import Screen
from agentstream.schemas.recordings import Gap, RecordedRun

_GAPS: dict[Gap, str] = {
    "no_result": "no result when the capture looked",
    "no_events": "events no longer on the log, or not recorded",
    "events_incomplete": "some of its events no longer on the log, or never published",
}
_LEFT_OUT = {
    "rejected": "records that were no requests",
    "repeated": "requests sent again under a run id that was there already",
    "unreadable": "records of the output topics that are not agentstream's",
    "expired": "offsets that expired while they were to be read",
}


def show_recording(directory: Path, *, runs: bool, as_json: bool) -> None:
    """Check a recording, and say what is in it. Raises RecordingError."""
    reader = RecordingReader.open(directory, allow_empty=True)
    screen = Screen()
    if runs:
        rows = [summary(run) for run in reader] if not as_json else []
        if as_json:
            for run in reader:
                screen.json(summary(run))
        screen.table(("run", "session", "turn", "status", "model", "events", "gaps"), list(map(_row, rows)))
        return
    if as_json:
        screen.json(reader.manifest.model_dump(mode="json", exclude_none=True), pretty=True)
        return
    tell_manifest(screen, reader.manifest)
    screen.out("nothing was changed since: all hashes are right")


def tell_manifest(screen: Screen, manifest: Manifest) -> None:
    """What is in a recording, for people."""
    for line in _lines(manifest):
        screen.out(line)


def summary(run: RecordedRun) -> dict[str, JsonValue]:
    """A run without what was said in it."""
    parameters = run.request.parameters if run.result is None else run.result.parameters
    return {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "turn": run.turn,
        "status": status_of(run),
        "model": parameters.model,
        "events": len(run.events),
        "gaps": [*run.gaps],
    }


def _row(found: dict[str, JsonValue]) -> tuple[str, ...]:
    gaps = found["gaps"]
    assert isinstance(gaps, list)
    return (
        *("" if value is None else str(value) for name, value in found.items() if name != "gaps"),
        ", ".join(map(str, gaps)),
    )


def _lines(manifest: Manifest) -> Iterator[str]:
    size = sum(part.bytes for part in manifest.files) / 1e6
    statuses = ", ".join(
        counted(count, "case") if status == "case" else f"{count:,} {status}"
        for status, count in manifest.statuses.items()
    )
    runs, sessions = counted(manifest.runs, "run"), counted(manifest.sessions, "session")
    yield f"{runs} of {sessions} ({statuses}), {counted(manifest.events, 'event')}"
    yield f"{size:,.1f} MB in {counted(len(manifest.files), 'file')}"
    yield f"made {manifest.created_at:%Y-%m-%d %H:%M:%S %Z} by agentstream {manifest.agentstream_version}"
    if manifest.origin == "topics":
        chosen = " · ".join(f"{name.replace('_', ' ')} {_given(value)}" for name, value in manifest.selection.items())
        yield f"from {manifest.topic_prefix}*: {chosen or 'everything there was'}"
    for gap, count in manifest.gaps.items():
        yield f"gap: {counted(count, 'run')}: {_GAPS[gap]}"
    for found in manifest.topics:
        if found.log_start and found.first == found.log_start:
            yield f"gap: {found.topic}/{found.partition} begins at {found.log_start:,}: what stood before has expired"
    for name, count in manifest.left_out:
        if count:
            yield f"left out: {count:,} {_LEFT_OUT[name]}"
    for rule in manifest.redactions:
        yield f"redacted by {rule.rule}: {counted(rule.replaced, 'place')} in {counted(rule.runs, 'run')}"


def _given(value: JsonValue) -> str:
    """What was selected, as somebody would type it."""
    if isinstance(value, list):
        return ", ".join(map(_given, value))
    if isinstance(value, dict):
        sign = "=" if any(isinstance(each, str) for each in value.values()) else ":"  # metadata, or offsets
        return ", ".join(f"{name}{sign}{_given(each)}" for name, each in value.items())
    return "no" if value is False else str(value)
