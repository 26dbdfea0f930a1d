"""From an outcome to its place on the log: encode it, hand it to the outbox, end its span once it is committed."""

from dataclasses import dataclass

from agentstream.consumers.admission import Refused, Run, Unnamed
from agentstream.consumers.engine import Engine
from agentstream.consumers.index import KnownRuns
from agentstream.consumers.ledger import Receipt
from agentstream.consumers.outbox import Outbox
from agentstream.consumers.publishing import Publishing
from agentstream.consumers.tracing.process import ProcessSpan, process_span
from agentstream.producers.outcomes import Outcome, RunOutcome
from agentstream.schemas import span_names as names
from agentstream.schemas.records import Record
from agentstream.schemas.results import InvokeResult


@dataclass(frozen=True, slots=True)
class Pending:
    """A run without a result, and what it came from."""

    run: Run
    record: Record
    receipt: Receipt


class Concluding:
    """The outcomes of one claim, and the spans of its requests that have none yet."""

    def __init__(self, engine: Engine, outbox: Outbox, publishing: Publishing, known: KnownRuns, *, claim: int) -> None:
        self._engine = engine
        self._outbox = outbox
        self._publishing = publishing
        self._known = known
        self._claim = claim
        self._open: dict[int, ProcessSpan] = {}

    def taken(self, record: Record, *, strikes: int) -> ProcessSpan:
        """A record was taken: its span, which ends with the claim at the latest."""
        span = process_span(self._engine.tracing, record, claim=self._claim, strikes=strikes)
        self._open[record.position.offset] = span
        return span

    def duplicate(self, offset: int) -> None:
        """Nothing is to be done but to move the committed offset past it."""
        self._engine.metrics.duplicate()
        self._outbox.put(Outcome(offset=offset))

    def refused(self, refused: Refused) -> None:
        """A request that cannot be admitted."""
        self._known.begin(refused.end.result.run_id, refused.end.body_hash)
        self._open[refused.end.record.position.offset].concluded(refused.problem)
        self._outbox.put(self._engine.encoder.refused(refused.end, refused.problem))

    def rejected(self, bad: Unnamed) -> None:
        """A record that is owed no result."""
        self._open[bad.end.record.position.offset].concluded(bad.end.problem)
        self._outbox.put(self._engine.encoder.rejected(bad.end))

    async def ended(self, pending: Pending, result: InvokeResult) -> None:
        """A run has its result: wait for its deltas, at most ten seconds, and until it is committed.

        Its transaction begins while its deltas are on their way. Cancelled if the claim is lost.
        """
        self._outbox.expect()
        try:
            result = await self._publishing.settled(result)
        finally:
            self._outbox.arrived()
        if (span := self._open.get(pending.record.position.offset)) is not None:
            span.concluded(result.error)
        process = pending.run.admitted.process
        end = RunOutcome(
            record=pending.record,
            body_hash=pending.run.body_hash,
            result=result,
            trace=process.trace,
            deliveries=pending.receipt.strikes + 1,
            send_trace=process.send_trace,
        )
        await self._outbox.put(self._engine.encoder.run(end)).committed

    def given_back(self, offset: int) -> None:
        """A run was ended without a result, since the worker stops."""
        if (span := self._open.pop(offset, None)) is not None:
            span.abandoned(names.DRAINING, began=True)

    def abandon(self, reason: str, *, began: set[int]) -> None:
        """The claim is lost, and with it all that is open; `began`: offsets of the runs that had begun."""
        for offset, span in self._open.items():
            span.abandoned(reason, began=offset in began)
        self._open.clear()

    def committed(self, outcome: Outcome) -> None:
        """It is on the log."""
        if outcome.run_id is not None:
            self._known.finish(outcome.run_id)
        if (span := self._open.pop(outcome.offset, None)) is not None:
            span.committed(outcome.status, outcome.code)
