"""The `process` span: what became of one request in one claim, from being taken until its outcome is committed."""

from datetime import datetime
from functools import partial
from typing import Final

from opentelemetry.trace import Link, Span, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.tracing.ids import process_id_of, span_id_of, trace_id_of
from agentstream.consumers.tracing.notes import TracedAttempt
from agentstream.consumers.tracing.quick import Attributes
from agentstream.consumers.tracing.spans import (
    Held,
    SpanError,
    SpanMaker,
    TimedSpan,
    link_to,
    nanoseconds,
)
from agentstream.consumers.tracing.untraced import UNTRACED, AttemptSpans
from agentstream.producers.spans import SENT, Sends, clean, span_context, trace_of
from agentstream.schemas import span_names as names
from agentstream.schemas.errors import Problem
from agentstream.schemas.headers import CE_ID, TRACE_TARGET, header_text, last_wins
from agentstream.schemas.records import Record
from agentstream.schemas.trace import TraceContext

_TAKEN: Final[Attributes] = {
    names.SPAN_KIND: names.CHAIN,
    names.MESSAGING_SYSTEM: names.KAFKA,
    names.OPERATION: names.PROCESS,
    names.OPERATION_TYPE: names.PROCESS,
}


class ProcessSpan:
    """One request under one claim. Ended by `committed` or `abandoned`, whichever comes first.

    This one, of a request that nobody traces, knows its place and passes over what it is told; `TracedProcess` makes
    spans of it. Spans that nobody would see took 21 µs a run; it takes 4.
    """

    __slots__ = ("trace",)

    def __init__(self, trace: TraceContext) -> None:
        self.trace = trace
        """What all that comes of the request hangs below."""

    @classmethod
    def none(cls, trace: TraceContext) -> "ProcessSpan":
        """Of a run that nobody traces."""
        return ProcessSpan(trace)

    def named(self, run_id: str, session_id: str | None) -> None:
        """The request was read, as far as it can be."""

    def turn_came(self) -> None:
        """It waits no longer."""

    def duplicate(self) -> None:
        """It was seen before and nothing is to be done."""

    def attempt_trace(self, attempt_id: str) -> TraceContext:
        """Where an attempt's deltas and model calls belong: its `invoke_agent` span, begun or not. Without spans a
        caller's context goes through as it came."""
        return self.trace

    def attempt(self, name: AttemptName, facts: AgentFacts, at: datetime) -> AttemptSpans:
        """Begin the spans of an attempt. Linked to the one before, if there was one."""
        return UNTRACED

    def send_trace(self, topic: str) -> TraceContext:
        """For the headers of a record that the outcome leaves on this topic: its `send` span."""
        return self.trace

    def concluded(self, problem: Problem | None) -> None:
        """The outcome is known, but not committed."""

    def committed(self, status: str | None, code: str | None) -> None:
        """The outcome is on the log, with this status and this error code, if any."""

    def abandoned(self, reason: str, *, began: bool) -> None:
        """It ends here without an outcome. One that never began is simply given back: no error."""

    def expect_lost(self) -> None:
        """An attempt was lost with its worker; which one, `lost_was` will say."""

    def lost_was(self, lost: TraceContext | None) -> None:
        """This attempt was lost, or none is found. Must follow `expect_lost`, or spans stay open."""


class TracedProcess(ProcessSpan):
    """Makes spans of what it is told. Its methods mean what they mean above.

    What it is told goes into its span at the end, with all that is below: `TracedAttempt` says why.
    """

    def __init__(self, make: SpanMaker, span: TimedSpan, trace: TraceContext, *, partition: int) -> None:
        super().__init__(trace)
        self._make = make
        self._span = span
        self._partition = partition
        self._said: dict[str, str | bool] = {}
        self._happened: list[tuple[str, int]] = []
        self._sends: Sends | None = None
        self._problem: Problem | None = None
        self._attempts: dict[str, TraceContext] = {}
        self._first: TracedAttempt | None = None
        self._latest: TracedAttempt | None = None
        self._previous: TraceContext | None = None
        self._lost: TraceContext | None = None
        self._waits = False
        self._end: tuple[int, SpanError | None] | None = None
        self._below = Held()

    def named(self, run_id: str, session_id: str | None) -> None:
        said = self._said
        said[names.RUN_ID] = run_id
        if session_id:
            said[names.SESSION_ID] = said[names.CONVERSATION_ID] = clean(session_id)

    def turn_came(self) -> None:
        self._happened.append((names.TURN_CAME, self._make.now()))

    def duplicate(self) -> None:
        self._said[names.DUPLICATE] = True

    def attempt_trace(self, attempt_id: str) -> TraceContext:
        found = self._attempts.get(attempt_id)
        if found is None:
            found = self._attempts[attempt_id] = self.trace.with_span(span_id_of(attempt_id, "agent", 0))
        return found

    def attempt(self, name: AttemptName, facts: AgentFacts, at: datetime) -> AttemptSpans:
        links: list[Link] = []
        if self._previous is not None:
            links.append(link_to(span_context(self._previous), "retried_attempt"))
        elif self._lost is not None:
            links.append(link_to(span_context(self._lost), "lost_attempt"))
        if self._latest is not None:
            self._latest.write()  # what ended first leaves first
        spans = self._latest = TracedAttempt(
            self._make, name, facts, at=nanoseconds(at), above=self._span, links=links, held=self._below
        )
        self._first = self._first or spans
        self._previous = self.attempt_trace(name.attempt_id)
        return spans if spans.is_open else UNTRACED

    def send_trace(self, topic: str) -> TraceContext:
        if self._sends is None:
            # Not a method of this object's: it would hold itself, and all of its run wait for Python's collector.
            begin = partial(_begin_send, self._make, self._span.place, str(self._partition))
            self._sends = Sends(begin, self.trace)
        return self._sends.trace(topic)

    def concluded(self, problem: Problem | None) -> None:
        self._problem = problem

    def committed(self, status: str | None, code: str | None) -> None:
        if status is not None:
            self._said[names.RUN_STATUS] = status
        if code is None:
            self._ends(None)
        else:
            detail = self._problem.detail if self._problem is not None else None
            self._ends(SpanError(code=code, detail=self._make.text(detail) if detail else None))

    def abandoned(self, reason: str, *, began: bool) -> None:
        self._said[names.ENDED_BY] = reason
        self._ends(SpanError(code=reason) if began else None, unsent=reason)

    def _ends(self, error: SpanError | None, *, unsent: str | None = None) -> None:
        if self._sends is not None:
            self._sends.end(unsent)
        self._end = (self._make.now(), error)
        if not self._waits:
            self._leave(*self._end)
        self._make.flush()

    def _leave(self, at: int, error: SpanError | None) -> None:
        if not self._below and self._make.dropped(self._span, self._unmade):
            return
        if self._latest is not None:
            self._latest.write()
        self._below.leave()
        self._span.set(self._said)
        for name, when in self._happened:
            self._span.event(name, when)
        self._span.end(at, error)

    def _unmade(self) -> int | None:
        """How many spans would leave; None: some are made already."""
        if self._latest is None:
            return 1
        below = self._latest.unmade
        return None if below is None else 1 + below

    def expect_lost(self) -> None:
        self._waits = True  # no link can be added later
        self._happened.append((names.ATTEMPT_LOST, self._make.now()))

    def lost_was(self, lost: TraceContext | None) -> None:
        if lost is not None:
            self._lost = lost
            link = link_to(span_context(lost), "lost_attempt")
            self._span.link(link)
            if self._first is not None:
                self._first.agent.link(link)
        self._waits = False
        if self._end is not None:
            self._leave(*self._end)
            self._make.flush()


def _begin_send(make: SpanMaker, above: SpanContext, partition: str, topic: str) -> Span:
    said: dict[str, AttributeValue] = {names.DESTINATION: topic, names.PARTITION: partition}
    name = f"{names.SEND} {topic}"
    return make.start(name, above, said, shared=(SENT,), at=make.now(), kind=SpanKind.PRODUCER, span_id=None).span


def process_span(
    make: SpanMaker, record: Record, *, claim: int, strikes: int = 0, lost_at: int | None = None
) -> ProcessSpan:
    """Begin the span of a record that was just taken; `lost_at`: of one that another worker took before.

    Where the headers have no trace context, or none that can be read, the trace is made of the record's position, so
    that whoever takes it again goes on in the same trace; then the span is a root, and the sampler decides.
    """
    where, headers = record.position, last_wins(record.headers)
    given = TraceContext.parse(headers)
    if given is not None and not make.makes_ids:
        return ProcessSpan(given)
    span_id = process_id_of(where, claim)
    base = given or TraceContext(trace_id=trace_id_of(where, record.timestamp_ms), span_id=span_id)
    if not make.makes_ids:
        return ProcessSpan(base)
    attributes: dict[str, AttributeValue] = {
        names.DESTINATION: where.topic,
        names.PARTITION: str(where.partition),
        names.OFFSET: where.offset,
        names.GROUP: make.group_id,
        names.BODY_SIZE: len(record.value or b""),
        names.REQUEST: str(where),
        names.CLAIM: claim,
    }
    if (message_id := header_text(headers, CE_ID)) is not None:
        attributes[names.MESSAGE_ID] = clean(message_id)
    if (target := header_text(headers, TRACE_TARGET)) is not None:
        attributes[names.TRACE_TARGET] = clean(target)[:128]
    if strikes:
        attributes[names.STRIKES] = strikes
    if lost_at is not None:
        attributes[names.LOST] = True
    name, at = f"{names.PROCESS} {where.topic}", make.now() if lost_at is None else lost_at
    if given is None:
        span = make.start_root(
            name,
            attributes,
            shared=(_TAKEN,),
            at=at,
            kind=SpanKind.CONSUMER,
            trace_id=base.trace_id,
            span_id=span_id,
        )
    else:
        caller = span_context(given)
        span = make.start(
            name,
            caller,
            attributes,
            shared=(_TAKEN,),
            at=at,
            kind=SpanKind.CONSUMER,
            span_id=int(span_id, 16),
            links=(link_to(caller, "request"),),
        )
    return TracedProcess(make, span, trace_of(span.span, base), partition=where.partition)
