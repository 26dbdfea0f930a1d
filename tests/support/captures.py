"""Captures of a test's topics."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.recording.capture import Capture
from agentstream.consumers.replay.recording.files import Manifest, RecordingReader, clear_spool
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.spool import Spool
from agentstream.consumers.replay.recording.writing import begin, write_recording
from agentstream.producers.kafka import idempotent_producer
from agentstream.schemas.events import AnyEvent, MessageEnded, MessageStarted, PartDelta, RunEnded, RunStarted
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun, SourceRecord
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES
from agentstream.schemas.trace import TraceContext
from tests.support.cluster import Cluster
from tests.support.runs import flush, result_of
from tests.support.waiting import patience

NO_RULES = Redactor()
TRACE = TraceContext.fresh()


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


async def made_up_runs(cluster: Cluster, runs: int, *, partitions: int, records: int = 3, padding: int = 10) -> None:
    """What so many completed runs leave on the topics, four to a session, each with so many delta records.

    Each record of deltas holds two events, but the first and the last hold the frame of the answer.
    """
    size = MAX_REQUEST_BYTES + OUTPUT_MARGIN_BYTES
    text = "word " * padding
    topics = cluster.topics
    async with idempotent_producer(cluster.connection, max_request_size=size) as producer:
        sent: list[asyncio.Future[object]] = []

        async def send(topic: str, number: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
            sent.append(await producer.send(topic, value, partition=number % partitions, headers=headers))
            if len(sent) >= 5_000:
                await asyncio.gather(*sent)
                sent.clear()

        for number in range(runs):
            made = _MadeUp(number, partitions, records, text)
            await send(topics.invoke_requests, made.partition, made.request, [])
            for first_seq, value in made.deltas:
                headers = DeltaHeaders(made.run_id, made.attempt_id, TRACE).of(first_seq)
                await send(topics.stream_deltas, made.partition, value, headers)
            await send(topics.assistant_messages, made.partition, made.result, [])
        await asyncio.gather(*sent)


class _MadeUp:
    def __init__(self, number: int, partitions: int, records: int, text: str) -> None:
        self.run_id, session = f"run-{number:06}", f"session-{number // 4}"
        self.partition = number // 4 % partitions
        self.attempt_id = str(UUID(int=number))
        request = InvokeRequest(id=self.run_id, session_id=session, messages=(Message.of_text("user", text),))
        self.request = request.to_bytes()
        deltas = [
            PartDelta(message_id="m", part_index=0, part_type="text", delta=text) for _ in range(2 * (records - 2))
        ]
        ended: list[AnyEvent] = [
            MessageEnded(message_id="m", message=Message.of_text("assistant", text)),
            RunEnded(status="completed"),
        ]
        started: list[AnyEvent] = [RunStarted(harness="scripted"), MessageStarted(message_id="m")]
        flushes: list[list[AnyEvent]] = [started, *_pairs(deltas), ended]
        self.deltas = [(2 * place, self._flush(events, 2 * place, session)) for place, events in enumerate(flushes)]
        result = result_of(run_id=self.run_id, last_seq=2 * len(flushes) - 1, text=text, partition=self.partition)
        self.result = result.model_copy(update={"attempt_id": self.attempt_id, "session_id": session}).to_bytes()

    def _flush(self, events: list[AnyEvent], first_seq: int, session: str) -> bytes:
        record = flush(events, run_id=self.run_id, first_seq=first_seq)
        return record.model_copy(update={"attempt_id": self.attempt_id, "session_id": session}).to_bytes()


def _pairs(deltas: list[PartDelta]) -> list[list[AnyEvent]]:
    return [[one, other] for one, other in zip(deltas[::2], deltas[1::2], strict=True)]
