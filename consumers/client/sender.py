"""Requests to the brokers, through one producer that is replaced when it fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TypeVar

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from opentelemetry.trace import NoOpTracer, Tracer

from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    ClientError,
    ClientNotOpen,
    RequestRefused,
    RightMissing,
    TopicsMissing,
    in_words,
)
from agentstream.consumers.client.outage import Hears
from agentstream.consumers.client.requests import cancel_of
from agentstream.producers.requests import RequestProducer, Submitted, request_attributes
from agentstream.producers.spans import sending
from agentstream.schemas.records import Position
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
ABANDON_SECONDS = 10.0
"""For telling the brokers that a run is not wanted any more: the caller who leaves waits for it."""
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError)


class RequestSender:
    """Sends requests through one shared producer, which is replaced when it fails. For concurrent use.

    A request that may have been sent is sent again without harm: the same id with the same body does not run twice.
    """

    def __init__(
        self,
        new_producer: Callable[[], RequestProducer],
        topics: Topics,
        *,
        max_request_bytes: int,
        tracer: Tracer | None = None,
        hears: Hears = nullcontext,
    ) -> None:
        """`tracer` makes a span of each, None: there are none. `hears`: see `Outage`."""
        self._hears = hears
        self._topics = topics
        self._tracer = tracer or NoOpTracer()
        self._new_producer = new_producer
        self._max_bytes = max_request_bytes
        self._opening = asyncio.Lock()
        self._producer: RequestProducer | None = None
        self._closed = True

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable, or RightMissing."""
        self._closed = False
        await self._connected()

    async def _connected(self) -> RequestProducer:
        """The producer, opened if there is none."""
        async with self._opening:
            self._check_open()
            if self._producer is None:
                producer = self._new_producer()
                try:
                    with self._hears():
                        await producer.__aenter__()
                except ClusterAuthorizationFailedError as error:
                    raise RightMissing("this user may not write to any topic") from error
                except (KafkaError, OSError, TimeoutError) as error:
                    raise BrokerUnavailable(f"no connection to the brokers: {in_words(error)}") from error
                try:
                    self._check_open()
                except ClientNotOpen:  # closed meanwhile
                    await producer.__aexit__(None, None, None)
                    raise
                self._producer = producer
            return self._producer

    def _check_open(self) -> None:
        if self._closed:
            raise ClientNotOpen

    async def close(self) -> None:
        """End the producer, in bounded time."""
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.__aexit__(None, None, None)

    async def send(
        self, request: InvokeRequest, trace: TraceContext | None, trace_target: str | None = None
    ) -> Submitted:
        """Return once the brokers hold it. Raises RequestRefused, TopicsMissing or BrokerUnavailable."""
        size = len(request.to_bytes())
        if size > self._max_bytes:
            raise RequestRefused(f"the request has {size} bytes; at most {self._max_bytes} are allowed")
        # One span for both tries: whichever record is run, it is in the trace that the caller is told.
        topic = self._topics.invoke_requests
        with sending(self._tracer, topic, trace, request_attributes(request)) as context:
            return await self._twice(lambda producer: producer.submit(request, context, trace_target), topic)

    async def cancel(self, control: CancelRun) -> Position:
        """Return once the brokers hold it, and where. Raises as `send`. Sent twice it does no more than once."""
        return await self._twice(lambda producer: producer.cancel(control), self._topics.control)

    async def abandon(self, run_id: str) -> None:
        """Cancel a run whose follower leaves. What he left with is worth more to him than why this failed."""
        try:
            async with asyncio.timeout(ABANDON_SECONDS):
                await self.cancel(cancel_of(run_id, "its caller stopped following it", None))
        except (ClientError, TimeoutError) as error:
            log.warning("run %s could not be cancelled and goes on: %s", run_id, str(error) or "no answer in time")

    async def _twice(self, send: Callable[[RequestProducer], Awaitable[Answer]], topic: str) -> Answer:
        try:
            return await self._try(send, topic)
        except BrokerUnavailable:
            return await self._try(send, topic)

    async def _try(self, send: Callable[[RequestProducer], Awaitable[Answer]], topic: str) -> Answer:
        producer = await self._connected()
        try:
            return await send(producer)
        except TopicAuthorizationFailedError as error:
            await self._replace(producer)
            raise RightMissing(f"this user may not write to {topic}: it lacks the right Write on that topic") from error
        except _REFUSALS as error:
            await self._replace(producer)
            raise RequestRefused(in_words(error)) from error
        except UnknownTopicOrPartitionError as error:
            await self._replace(producer)
            raise TopicsMissing(f"no such topic: {topic}; `agentstream topics apply` makes it") from error
        except (KafkaError, OSError, TimeoutError) as error:
            await self._replace(producer)
            raise BrokerUnavailable(f"the request was not acknowledged: {in_words(error)}") from error

    async def _replace(self, producer: RequestProducer) -> None:
        """A batch that was refused leaves a hole in the producer's sequence: what follows it would be refused too."""
        if self._producer is producer:
            self._producer = None
            await producer.__aexit__(None, None, None)
