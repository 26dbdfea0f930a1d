"""A run's events on their way out: to the delta topic as they come, under the trace of their attempt."""

from contextlib import aclosing

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.engine import Engine
from agentstream.consumers.interrupt import Interrupt
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.headers import delta_headers
from agentstream.schemas.records import OutgoingRecord
from agentstream.schemas.results import InvokeResult


class Publishing:
    """Plays the runs of one partition and publishes what they yield. Keeps no state of its own."""

    def __init__(self, engine: Engine, partition: int) -> None:
        self._engine = engine
        self._topic = engine.topics.stream_deltas
        self._partition = partition

    async def perform(self, admitted: Admitted, interrupt: Interrupt) -> InvokeResult | None:
        """Publish the run's events and return its result; None if it was drained."""
        attempt_id: str | None = None
        result: InvokeResult | None = None
        try:
            async with aclosing(self._engine.runs.execute(admitted, interrupt)) as produced:
                async for item in produced:
                    if isinstance(item, InvokeResult):
                        result = item
                        continue
                    if attempt_id is not None and attempt_id != item.attempt_id:
                        self._engine.deltas.forget(attempt_id)
                    attempt_id = item.attempt_id
                    last_seq = item.first_seq + len(item.events) - 1
                    await self._engine.deltas.publish(attempt_id, last_seq, self._record(item, admitted))
        finally:
            if result is None and attempt_id is not None:
                self._engine.deltas.forget(attempt_id)
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
        return self._engine.deltas.publish_if_idle(events.attempt_id, 0, self._record(events, admitted))

    def _record(self, events: StreamEvents, admitted: Admitted) -> OutgoingRecord:
        trace = admitted.process.attempt_trace(events.attempt_id)
        return OutgoingRecord(
            topic=self._topic,
            partition=self._partition,
            key=events.session_id.encode(),
            value=events.to_bytes(),
            headers=delta_headers(events.run_id, events.attempt_id, events.first_seq, trace),
        )
