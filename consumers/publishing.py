"""A run's events on their way out: to the delta topic as they come, under the trace of their attempt."""

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.engine import Engine
from agentstream.consumers.interrupt import Interrupt
from agentstream.producers.delta_queue import Attempt
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.results import InvokeResult


class Publishing:
    """Plays the runs of one partition and publishes what they yield. Keeps no state of its own."""

    def __init__(self, engine: Engine, partition: int) -> None:
        self._engine = engine
        self._where = (engine.topics.stream_deltas, partition)

    async def perform(self, admitted: Admitted, interrupt: Interrupt) -> InvokeResult | None:
        """Publish the run's events and return its result; None if it was drained."""
        deltas = self._engine.deltas
        attempt: Attempt | None = None
        result: InvokeResult | None = None
        produced = self._engine.runs.execute(admitted, interrupt)
        try:
            async for item in produced:
                if isinstance(item, InvokeResult):
                    result = item
                    continue
                if attempt is None or attempt.id != item.attempt_id:
                    if attempt is not None:
                        deltas.forget(attempt.id)
                    attempt = self._attempt(item, admitted)
                first_seq = item.first_seq
                await deltas.publish(attempt, item.to_bytes(), first_seq, first_seq + len(item.events) - 1)
        finally:
            if result is None and attempt is not None:
                deltas.forget(attempt.id)
            await produced.aclose()
        return result

    async def settled(self, result: InvokeResult) -> InvokeResult:
        """The result, once the brokers have its deltas; after ten seconds it says that they are partial."""
        if result.attempt_id is None:
            return result
        settled = await self._engine.deltas.settle(result.attempt_id)
        if settled.deltas == "complete":
            return result
        return result.model_copy(update={"deltas": "partial", "last_seq": settled.last_seq})

    def announce(self, events: StreamEvents, admitted: Admitted) -> bool:
        """Publish an event at once, or not at all; says whether."""
        return self._engine.deltas.publish_if_idle(self._attempt(events, admitted), events.to_bytes())

    def _attempt(self, events: StreamEvents, admitted: Admitted) -> Attempt:
        """The attempt that these events are of, known already if it was announced."""
        deltas, attempt_id = self._engine.deltas, events.attempt_id
        if (known := deltas.known(attempt_id)) is not None:
            return known
        headers = DeltaHeaders(events.run_id, attempt_id, admitted.process.attempt_trace(attempt_id))
        return deltas.begin(self._where, events.session_id.encode(), headers)
