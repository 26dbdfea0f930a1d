"""What evaluators said of replayed runs, onto its topic: keyed by session, never by a worker."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from agentstream.producers.kafka import SEND_SECONDS, Producer, ProducerOwner
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.headers import EVALUATION, cloud_event
from agentstream.schemas.topics import Topics
from agentstream.schemas.trace import TraceContext

_AT_ONCE: Final = 500


class EvaluationProducer(ProducerOwner):
    """Puts results of evaluations on their topic. Opened and closed by `async with`."""

    def __init__(self, new_producer: Callable[[], Producer], topics: Topics) -> None:
        super().__init__(new_producer)
        self._topic = topics.evaluations

    async def publish(self, results: Iterable[EvaluationResult]) -> int:
        """Send them all, and return how many the brokers hold. Raises aiokafka's KafkaError, or TimeoutError."""
        count, waiting = 0, []
        for result in results:
            waiting.append(await self._send(result))
            count += 1
            if len(waiting) == _AT_ONCE:
                await self._confirmed(waiting)
                waiting = []
        await self._confirmed(waiting)
        return count

    async def _send(self, result: EvaluationResult) -> asyncio.Future[object]:
        # In the trace of the run that was judged, where it is known: what reads the topic finds its way back.
        trace = TraceContext.fresh()
        if result.trace_id is not None:
            trace = TraceContext(trace_id=result.trace_id, span_id=trace.span_id, flags=trace.flags)
        async with asyncio.timeout(SEND_SECONDS):
            sent: asyncio.Future[object] = await self._producer.send(
                self._topic,
                value=result.to_bytes(),
                key=result.session_id.encode(),
                headers=cloud_event(EVALUATION, result.run_id, trace),
            )
        return sent

    async def _confirmed(self, waiting: Iterable[asyncio.Future[object]]) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await asyncio.gather(*waiting)
