"""From what a caller says to a request that the brokers hold."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, TypeVar

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from opentelemetry.trace import NoOpTracer, Tracer
from pydantic import ValidationError
from uuid_utils.compat import uuid7

from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    ClientError,
    ClientNotOpen,
    RequestRefused,
    RightMissing,
    TopicsMissing,
    in_words,
)
from agentstream.producers.requests import RequestProducer, Submitted, request_attributes
from agentstream.producers.spans import sending
from agentstream.schemas.codec import body_hash
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position
from agentstream.schemas.requests import AgentParameters, CancelRun, InvokeRequest
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

log = logging.getLogger(__name__)

Content = str | InvokeRequest | Sequence[Message | Mapping[str, object]]
"""One user turn as text, a whole conversation, or a request."""

Answer = TypeVar("Answer")
ABANDON_SECONDS = 10.0
"""For telling the brokers that a run is not wanted any more: the caller who leaves waits for it."""
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError)


class TurnOptions(TypedDict, total=False):
    """What a caller may add to every turn of a conversation, by the names of `InvokeRequest`."""

    parameters: AgentParameters | Mapping[str, object]
    deadline: datetime
    ttl_ms: int
    parent_run_id: str
    metadata: Mapping[str, str]
    trace: TraceContext
    trace_target: str


class RequestOptions(TurnOptions, total=False):
    """What a caller may add, by the names of `InvokeRequest`; it goes before what a given request says."""

    run_id: str | None
    session_id: str | None


_NOT_IN_THE_BODY = ("trace", "trace_target")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A request that can be sent."""

    run_id: str
    """Its run id."""
    request: InvokeRequest
    """It, with a run id and a session."""
    trace: TraceContext | None
    """The caller's own, if he has one."""
    trace_target: str | None
    """Name of the place, known to the worker, that the run's spans are exported to."""
    body_hash: str | None
    """As `SubmittedRun` has it."""


def request_of(content: Content, options: RequestOptions) -> InvokeRequest:
    """The request, with a run id and a session. Raises RequestRefused if it is not a valid one."""
    # Python does not check these names. One that was passed over, such as `tools`, gave a run without tools.
    if unknown := [name for name in options if name not in RequestOptions.__annotations__]:
        raise RequestRefused(
            f"`{unknown[0]}` is no option of a request; they are {', '.join(RequestOptions.__annotations__)}; "
            "model, tools, limits and the like go into `parameters`"
        )
    named: dict[str, object] = {
        name: value for name, value in options.items() if name not in _NOT_IN_THE_BODY and value is not None
    }
    if "run_id" in named:
        named["id"] = named.pop("run_id")
    try:
        if isinstance(content, InvokeRequest):
            said: dict[str, object] = {name: getattr(content, name) for name in content.model_fields_set}
        elif isinstance(content, str):
            said = {"messages": (Message.of_text("user", content),)}
        else:
            said = {"messages": tuple(content)}
        request = InvokeRequest.model_validate({"id": str(uuid7()), **said, **named})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise RequestRefused(f"not a valid request: {where}: {first['msg']}") from error
    run_id = request.id or str(uuid7())
    return request.model_copy(update={"id": run_id, "session_id": request.session_id or run_id})


def prepare(content: Content | Prepared, options: RequestOptions) -> Prepared:
    """What a caller wants sent. Raises RequestRefused if it is not a valid request.

    Whoever must know the id that a run will have prepares it himself, and gives that to `stream`. An id that was made
    here is new, unlike one that he makes: nothing of it can have come before, and nothing is looked for.
    """
    if isinstance(content, Prepared):
        if options:
            raise RequestRefused("a request that is prepared takes no more options")
        return content
    request = request_of(content, options)
    chosen = options.get("run_id") is not None or (isinstance(content, InvokeRequest) and content.id is not None)
    return Prepared(
        run_id=request.id or "",
        request=request,
        trace=options.get("trace"),
        trace_target=options.get("trace_target"),
        body_hash=body_hash(request.to_bytes()) if chosen else None,
    )


def cancel_of(run_id: str, reason: str | None, requested_by: str | None) -> CancelRun:
    """The request to cancel a run. Raises RequestRefused if it is not a valid one."""
    try:
        return CancelRun(run_id=run_id, reason=reason, requested_by=requested_by)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RequestRefused(f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}") from error


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
    ) -> None:
        """`tracer` makes a span of each, None: there are none."""
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
