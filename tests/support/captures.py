"""Captures of a test's topics."""

from datetime import UTC, datetime
from pathlib import Path

from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.recording.capture import Capture
from agentstream.consumers.replay.recording.files import Manifest, RecordingReader, clear_spool
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.spool import Spool
from agentstream.consumers.replay.recording.writing import begin, write_recording
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun, SourceRecord
from agentstream.schemas.requests import InvokeRequest
from tests.support.cluster import Cluster
from tests.support.runs import result_of
from tests.support.waiting import patience

NO_RULES = Redactor()


def recorded(run_id: str = "run", *, session: str = "session", turn: int = 0, text: str = "hi") -> RecordedRun:
    """A run of a recording, without events."""
    return RecordedRun(
        run_id=run_id,
        session_id=session,
        turn=turn,
        source=SourceRecord(topic="agent.invoke-requests", partition=0, offset=turn, timestamp_ms=turn),
        request=InvokeRequest(id=run_id, session_id=session, messages=(Message.of_text("user", text),)),
        result=result_of(run_id=run_id, last_seq=-1),
    )


async def captured(
    cluster: Cluster, directory: Path, rules: Rules | None = None, **selection: object
) -> dict[str, RecordedRun]:
    """Capture what is selected; the runs by id, in the recording's order."""
    await capture(cluster, directory, rules, **selection)
    return {run.run_id: run for run in RecordingReader.open(directory)}


async def capture(cluster: Cluster, directory: Path, rules: Rules | None = None, **selection: object) -> Manifest:
    """Capture what is selected."""
    wanted = Selection(**selection)  # type: ignore[arg-type]  # a test's own names
    directory.mkdir(exist_ok=True)
    spool = Spool(directory)
    try:
        begin(spool, {})
        async with patience():
            await Capture(cluster.connection, cluster.topics, wanted, spool).read()
        about = {"selection": wanted.document(), "created_at": datetime.now(UTC)}
        manifest = write_recording(directory, spool, rules or Rules(NO_RULES), cluster.topics, about)  # type: ignore[arg-type]
    finally:
        spool.close()
    clear_spool(directory)
    return manifest
