"""Writes a worker's outputs by hand, in whatever order a test wants them to stand on the log."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from agentstream.consumers.readers import Read, TopicReader
from agentstream.producers.kafka import Producer, idempotent_producer, transactional_producer
from agentstream.producers.requests import Submitted
from agentstream.schemas.codec import Rejection, decode_request
from agentstream.schemas.errors import Problem
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    RunEnded,
    RunStarted,
    StreamEvents,
)
from agentstream.schemas.headers import INVOKE_RESULT, DeltaHeaders, cloud_event
from agentstream.schemas.messages import Message, TextPart
from agentstream.schemas.records import Headers, Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import MAX_REQUEST_BYTES, OUTPUT_MARGIN_BYTES
from agentstream.schemas.trace import TraceContext
from tests.support.cluster import Cluster
from tests.support.runs import flush, result_of
from tests.support.waiting import WAIT_SECONDS

TRACE = TraceContext.fresh()


def answer(*pieces: str) -> list[AnyEvent]:
    """All events of an attempt that says this, a delta for each piece."""
    text = "".join(pieces)
    return [
        RunStarted(harness="scripted"),
        MessageStarted(message_id="m"),
        PartStarted(message_id="m", part_index=0, part_type="text"),
        *(PartDelta(message_id="m", part_index=0, part_type="text", delta=piece) for piece in pieces),
        PartEnded(message_id="m", part_index=0, part_type="text", part=TextPart(content=text)),
        MessageEnded(message_id="m", message=Message.of_text("assistant", text), finish_reason="stop"),
        RunEnded(status="completed"),
    ]


class Outputs:
    """Writes to the outputs of one cluster. Made by `outputs_of`."""

    def __init__(self, cluster: Cluster, deltas: Producer, results: Producer) -> None:
        self._connection = cluster.connection
        self._topics = cluster.topics
        self._deltas = deltas
        self._results = results

    async def requests(self, count: int) -> list[tuple[Submitted, str]]:
        """Wait for so many requests; returns all there are with the text of their last messages."""
        found: list[tuple[Submitted, str]] = []
        async with (
            asyncio.timeout(WAIT_SECONDS),
            TopicReader(self._connection, self._topics.invoke_requests, _request, start="beginning") as reader,
        ):
            while len(found) < count:
                read = await anext(reader)
                assert isinstance(read, Read)
                assert isinstance(read.value, InvokeRequest)
                submitted = Submitted(
                    run_id=read.value.id or "",
                    session_id=read.value.session_id or "",
                    position=read.record.position,
                    trace=TRACE,
                )
                found.append((submitted, read.value.messages[-1].text))
        return found

    async def events(
        self,
        run: Submitted,
        events: Iterable[AnyEvent],
        *,
        claim: int = 1,
        attempt: int = 1,
        first_seq: int = 0,
    ) -> None:
        """One delta record in the run's partition."""
        record = flush(events, run_id=run.run_id, claim=claim, attempt=attempt, first_seq=first_seq)
        await self.stream(record, run.position.partition)

    async def stream(self, record: StreamEvents, partition: int = 0) -> None:
        """Any record of the delta topic."""
        headers = DeltaHeaders(record.run_id, record.attempt_id, TRACE).of(record.first_seq)
        await self._deltas.send_and_wait(
            self._topics.stream_deltas, record.to_bytes(), partition=partition, headers=headers
        )

    async def result(
        self,
        run: Submitted,
        *,
        claim: int = 1,
        attempt: int | None = 1,
        last_seq: int,
        text: str = "ok",
    ) -> InvokeResult:
        """A committed result in the run's partition."""
        result = result_of(
            run_id=run.run_id,
            claim=claim,
            attempt=attempt,
            last_seq=last_seq,
            text=text,
            partition=run.position.partition,
        )
        await self.results((result, result.run_id), partition=run.position.partition)
        return result

    async def whole_run(self, run: Submitted, text: str = "ok") -> InvokeResult:
        """Everything that a run which ends well leaves for its caller."""
        events = answer(text)
        await self.events(run, events)
        return await self.result(run, last_seq=len(events) - 1, text=text)

    async def results(self, *results: tuple[InvokeResult, str], partition: int = 0, commit: bool = True) -> None:
        """Results and the runs their headers name, in one transaction."""
        records = [(result.to_bytes(), cloud_event(INVOKE_RESULT, named, TRACE)) for result, named in results]
        await self.raw_results(*records, partition=partition, commit=commit)

    async def raw_results(self, *records: tuple[bytes, Headers], partition: int = 0, commit: bool = True) -> None:
        """Any bytes under any headers on the topic of results, in one transaction."""
        await self._results.begin_transaction()
        for value, headers in records:
            await self._results.send_and_wait(
                self._topics.assistant_messages, value, partition=partition, headers=list(headers)
            )
        await (self._results.commit_transaction() if commit else self._results.abort_transaction())


def _request(record: Record) -> InvokeRequest | Problem:
    found = decode_request(record)
    return found.problem if isinstance(found, Rejection) else found


@asynccontextmanager
async def outputs_of(cluster: Cluster) -> AsyncIterator[Outputs]:
    """Open what is needed to write outputs by hand."""
    size = MAX_REQUEST_BYTES + OUTPUT_MARGIN_BYTES
    async with AsyncExitStack() as stack:
        deltas = await stack.enter_async_context(idempotent_producer(cluster.connection, max_request_size=size))
        name = f"{cluster.topics.prefix}by-hand"
        results = transactional_producer(cluster.connection, name, max_request_size=size)
        yield Outputs(cluster, deltas, await stack.enter_async_context(results))
