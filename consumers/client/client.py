"""The caller's side: send a request, see its events while it runs, and get its result.

    async with AgentClient("localhost:9092") as client:
        async with client.stream("hi", session_id="s1") as run:
            async for event in run:
                …
            result = await run.result()
        result = await client.invoke("hi")

Positions are fixed before a request is sent, so that no answer can be too quick. See `errors` for what may be raised.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self, Unpack

from opentelemetry.trace import Tracer

from agentstream.consumers.client.buffer import MAX_BUFFERED_BYTES
from agentstream.consumers.client.errors import ClientNotOpen, RunFailed
from agentstream.consumers.client.outage import Outage
from agentstream.consumers.client.outputs import Outputs
from agentstream.consumers.client.recorded import RecordedHistory, Wanted, read_history
from agentstream.consumers.client.requests import (
    Content,
    Prepared,
    RequestOptions,
    TurnOptions,
    cancel_of,
    prepare,
)
from agentstream.consumers.client.run import Patience, Run
from agentstream.consumers.client.sender import RequestSender
from agentstream.consumers.client.session import AgentSession
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.producers.connection import KafkaConnection
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import DEFAULT_PREFIX, MAX_REQUEST_BYTES, Topics


class AgentClient:
    """Runs agents through Kafka. Opened and closed by `async with`; for any number of callers at once.

    Opening connects the producer and raises BrokerUnavailable; the consumers are opened when somebody first waits. A
    client that is not open raises ClientNotOpen. All times are seconds; `timeout` counts from the call to the result,
    None waits for ever, and what is not above 0 raises ValueError. Whoever stops waiting cancels nothing, except by
    leaving the block of `stream`.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        connection: KafkaConnection | None = None,
        topic_prefix: str = DEFAULT_PREFIX,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
        tracer: Tracer | None = None,
    ) -> None:
        """Give `bootstrap_servers` (`host:port,…`), or a `connection` where there is more to say.

        `max_buffered_bytes` bounds what is kept of one run for a caller who iterates slowly. `tracer`, of
        OpenTelemetry, makes a span of each request that is sent; without one a run still goes on in the trace of the
        span that is current when it is asked for.
        """
        if (bootstrap_servers is None) == (connection is None):
            raise TypeError("give either bootstrap_servers or a connection")
        self._connection = connection or KafkaConnection(bootstrap_servers=bootstrap_servers or "")
        self._topics = Topics(prefix=topic_prefix)
        self._max_request_bytes = max_request_bytes
        self._outage = Outage(self._connection, self._topics)
        hears = self._outage.hears
        self._sender = RequestSender(
            self._new_producer, self._topics, max_request_bytes=max_request_bytes, tracer=tracer, hears=hears
        )
        self._all_outputs = Outputs(self._connection, self._topics, max_buffered_bytes=max_buffered_bytes, hears=hears)
        self._is_open = False

    async def __aenter__(self) -> Self:
        await self._sender.open()
        self._outage.open()
        self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_open = False
        try:
            await self._outage.close()
            await self._all_outputs.close()
        finally:
            await self._sender.close()

    async def submit(self, content: Content, **options: Unpack[RequestOptions]) -> SubmittedRun:
        """Send a request and return once the brokers hold it. `wait` and `follow` take what is returned, at any time.

        Raises RequestRefused, TopicsMissing or BrokerUnavailable, as everything that sends does.
        """
        outputs, prepared = self._outputs, prepare(content, options)
        results = await outputs.results.positions()
        deltas = await outputs.deltas.positions()
        return await self._send(prepared, results, deltas)

    async def invoke(
        self, content: Content, *, timeout: float | None = None, check: bool = False, **options: Unpack[RequestOptions]
    ) -> InvokeResult:
        """Send a request and wait for its result. With `check` a run that did not complete raises RunFailed.

        Sent again under the caller's own `run_id`, the same request gets the result of the first, also if that came
        before. Raises RunIdTaken if it is another request, and what `submit` and `Run.result` raise.
        """
        patience = Patience.of(timeout)
        prepared = prepare(content, options)
        outcome, lookback = self._outputs.outcome(prepared.run_id, prepared.body_hash)
        async with AsyncExitStack() as stack:
            async with patience.for_the_brokers():
                results = await stack.enter_async_context(self._outputs.listening_for_result(outcome, lookback))
                submitted = await self._send(prepared, results)
                await self._outputs.results.cover(submitted.position.partition)
            await stack.enter_async_context(lookback.watching(submitted))
            return _checked(await patience.for_result(outcome, submitted), check)

    async def wait(self, submitted: SubmittedRun, *, timeout: float | None = None, check: bool = False) -> InvokeResult:
        """The result of a request that was sent before, by whomever. Raises as `invoke`."""
        patience = Patience.of(timeout)
        outcome, lookback = self._outputs.outcome(submitted.run_id, submitted.body_hash)
        async with AsyncExitStack() as stack:
            async with patience.for_the_brokers():
                await stack.enter_async_context(self._outputs.listening_for_result(outcome, lookback))
                await self._outputs.results.cover(submitted.position.partition, submitted.results_from)
            await stack.enter_async_context(lookback.watching(submitted))
            return _checked(await patience.for_result(outcome, submitted), check)

    @asynccontextmanager
    async def stream(
        self,
        content: Content | Prepared,
        *,
        timeout: float | None = None,
        cancel_on_exit: bool = True,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[Run]:
        """Send a request and follow its run. Leaving the block before the result came, however, cancels the run.

        So does being cancelled on the way into it, once the brokers may have the request. With `cancel_on_exit=False`
        it goes on, and can be followed or waited for again by `run.submitted`.
        """
        patience, begun = Patience.of(timeout), False
        prepared = prepare(content, options)
        async with AsyncExitStack() as stack:
            try:
                async with patience.for_the_brokers():
                    feed, lookback = self._outputs.feed(prepared.run_id, prepared.body_hash)
                    listening = self._outputs.listening_for_run(feed, lookback)
                    results, deltas = await stack.enter_async_context(listening)
                    begun = True
                    submitted = await self._send(prepared, results, deltas)
                    await self._outputs.results.cover(submitted.position.partition)
                    await self._outputs.deltas.cover(submitted.position.partition)
            except asyncio.CancelledError:
                if cancel_on_exit and begun:
                    await self._sender.abandon(prepared.run_id)
                raise
            await stack.enter_async_context(lookback.watching(submitted))
            run = Run(submitted, feed, patience, self._sender.cancel)
            try:
                yield run
            finally:
                if cancel_on_exit and not run.over:
                    await self._sender.abandon(run.run_id)

    @asynccontextmanager
    async def follow(self, submitted: SubmittedRun, *, timeout: float | None = None) -> AsyncIterator[Run]:
        """Follow a run that was sent before, by whomever, from its first event that is still on the log."""
        patience = Patience.of(timeout)
        async with AsyncExitStack() as stack:
            async with patience.for_the_brokers():
                feed, lookback = self._outputs.feed(submitted.run_id, submitted.body_hash)
                await stack.enter_async_context(self._outputs.listening_for_run(feed, lookback))
                await self._outputs.results.cover(submitted.position.partition, submitted.results_from)
                await self._outputs.deltas.cover(submitted.position.partition, submitted.deltas_from)
            await stack.enter_async_context(lookback.watching(submitted))
            yield Run(submitted, feed, patience, self._sender.cancel)

    def session(
        self,
        session_id: str | None = None,
        *,
        history: Iterable[Message | Mapping[str, object]] = (),
        **options: Unpack[TurnOptions],
    ) -> AgentSession:
        """A conversation that keeps its history and sends it with each turn; opened by `async with`.

        `session_id`: None for a new one. `history`: what was said before, such as `history(session_id)` finds it.
        """
        self._check_open()
        return AgentSession(self, session_id, history, options)

    async def history(
        self, session_id: str, *, lost_is_fine: bool = False, progress: Callable[[str], None] = lambda _line: None
    ) -> RecordedHistory:
        """The conversation of a session as its recorded requests and results tell it, read from its one partition.

        `progress` is given a line every two seconds. Raises SessionUnknown, SessionBusy, HistoryLost unless
        `lost_is_fine`, TopicsMissing or BrokerUnavailable.
        """
        wanted = Wanted(session_id=session_id, lost_is_fine=lost_is_fine, progress=progress)
        return await read_history(self._connection, self._topics, self._outputs.finished, wanted)

    async def cancel(self, run_id: str, reason: str | None = None, *, requested_by: str | None = None) -> None:
        """Ask for a run to end, whoever sent it and wherever it is; returns once the brokers hold that.

        It may be cancelled before its request is sent. One that has ended is not changed, and an unknown one is
        ignored. Raises RequestRefused, TopicsMissing or BrokerUnavailable.
        """
        self._check_open()
        await self._sender.cancel(cancel_of(run_id, reason, requested_by))

    async def _send(
        self,
        prepared: Prepared,
        results: Mapping[int, int],
        deltas: Mapping[int, int] | None = None,
    ) -> SubmittedRun:
        sent = await self._sender.send(prepared.request, prepared.trace, prepared.trace_target)
        return SubmittedRun.of(sent, results, deltas, prepared.body_hash)

    @property
    def _outputs(self) -> Outputs:
        self._check_open()  # else they would open consumers that nobody closes
        return self._all_outputs

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClientNotOpen

    def _new_producer(self) -> RequestProducer:
        size = self._max_request_bytes
        return RequestProducer(lambda: idempotent_producer(self._connection, max_request_size=size), self._topics)


def _checked(result: InvokeResult, check: bool) -> InvokeResult:
    if check and result.status != "completed":
        raise RunFailed(result)
    return result
