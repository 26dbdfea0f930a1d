"""The callers' side: invoke requests and control requests."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import NoOpTracer, Tracer
from uuid_utils.compat import uuid7

from agentstream.producers.kafka import SEND_SECONDS, Producer, ProducerOwner
from agentstream.producers.spans import clean, sending
from agentstream.schemas import span_names as names
from agentstream.schemas.headers import CANCEL_RUN, INVOKE_REQUEST, TRACE_TARGET, cloud_event
from agentstream.schemas.records import Position
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A request that the brokers hold."""

    run_id: str
    """The run."""
    session_id: str
    """The run's session."""
    position: Position
    """Where the request lies: its deltas and its result come in the same partition number."""
    trace: TraceContext
    """The context sent along."""


class RequestProducer(ProducerOwner):
    """Puts requests on topics. Opened and closed by `async with`; for concurrent use."""

    def __init__(self, new_producer: Callable[[], Producer], topics: Topics, tracer: Tracer | None = None) -> None:
        """`tracer` makes a span of each request that is sent; None: there are none."""
        super().__init__(new_producer)
        self._tracer = tracer or NoOpTracer()
        self._topics = topics

    async def submit(
        self, request: InvokeRequest, trace: TraceContext | None = None, trace_target: str | None = None
    ) -> Submitted:
        """Send a request, keyed by its session (absent: by its run id), and wait until the brokers hold it.

        It goes on in `trace`, else in that of the span that is current in the calling program, else in a new one.
        `trace_target` names a place in the worker's settings that the run's spans are exported to.

        Raises aiokafka's KafkaError, such as KafkaConnectionError and MessageSizeTooLargeError, or TimeoutError.
        """
        run_id = request.id or str(uuid7())
        session_id = request.session_id or run_id
        named = request.model_copy(update={"id": run_id, "session_id": session_id})
        topic = self._topics.invoke_requests
        with sending(self._tracer, topic, trace, request_attributes(named)) as context:
            headers = cloud_event(INVOKE_REQUEST, run_id, context, ce_id=run_id)
            headers += [] if trace_target is None else [(TRACE_TARGET, trace_target.encode())]
            position = await self._send(topic, session_id, named.to_bytes(), headers)
        return Submitted(run_id=run_id, session_id=session_id, position=position, trace=context)

    async def cancel(self, control: CancelRun) -> Position:
        """Ask for a run to be cancelled. Raises as `submit` does."""
        headers = cloud_event(CANCEL_RUN, control.run_id, TraceContext.fresh())
        return await self._send(self._topics.control, control.run_id, control.to_bytes(), headers)

    async def _send(self, topic: str, key: str, value: bytes, headers: list[tuple[str, bytes]]) -> Position:
        async with asyncio.timeout(SEND_SECONDS):
            sent = await self._producer.send_and_wait(topic, value=value, key=key.encode(), headers=headers)
        return Position(topic=topic, partition=sent.partition, offset=sent.offset)


def request_attributes(request: InvokeRequest) -> dict[str, str]:
    """What the span of a request that is sent says about it."""
    run_id, session_id = request.id or "", request.session_id or ""
    return {
        names.SPAN_KIND: names.CHAIN,
        names.MESSAGE_ID: run_id,
        names.RUN_ID: run_id,
        names.SESSION_ID: clean(session_id),
        names.CONVERSATION_ID: clean(session_id),
    }
