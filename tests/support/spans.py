"""Spans of a test, by the real SDK, kept in memory; and trees of them, wherever they come from."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.tracing.process import ProcessSpan, process_span
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.infra.telemetry.ids import WantedIds
from agentstream.schemas import span_names as names
from agentstream.schemas.records import Headers, Record
from agentstream.schemas.requests import InvokeRequest
from tests.support.otlp_values import EventSeen, LinkSeen, SpanSeen, Value


@dataclass
class Recorder:
    """A tracer, and what it recorded."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    sampler: Sampler | None = None
    flushed: int = 0

    def __post_init__(self) -> None:
        self.provider = TracerProvider(self.sampler, id_generator=WantedIds(), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def maker(self, **given: object) -> SpanMaker:
        """What spans are made with here."""
        return SpanMaker(tracer=self.provider.get_tracer("test"), flush=self.flush, **given)  # type: ignore[arg-type]

    def flush(self) -> None:
        self.flushed += 1

    @property
    def spans(self) -> list[SpanSeen]:
        """Those that ended, in the order in which they did."""
        return [_seen(span) for span in self.exporter.get_finished_spans()]


def by_name(spans: Iterable[SpanSeen], name: str) -> SpanSeen:
    """The one span of that name."""
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} spans are named {name!r}"
    return found[0]


def tree(spans: Collection[SpanSeen]) -> list[str]:
    """The spans as lines, children indented below their parents in the order in which they began; errors marked.

    What has a parent elsewhere is a root here.
    """
    ids = {span.span_id for span in spans}
    lines: list[str] = []

    def show(above: str | None, depth: int) -> None:
        for span in sorted(spans, key=lambda each: (each.start_ns, _rank(each.name))):
            parent = span.parent_id if span.parent_id in ids else None
            if parent == above:
                code = span.attributes.get(names.ERROR_TYPE)
                error = f" !{code if isinstance(code, str) else '?'}" if span.status == "error" else ""
                lines.append(f"{'  ' * depth}{span.name}{error}")
                show(span.span_id, depth + 1)

    show(None, 0)
    return lines


def _rank(name: str) -> int:
    order = ("process", "invoke_agent", "turn", "chat", "execute_tool", "send")
    return next((place for place, word in enumerate(order) if name.startswith(word)), len(order))


def assert_well_formed(spans: Sequence[SpanSeen]) -> None:
    """Ids are not used twice, nothing ends before it began, and children belong to their parent's trace."""
    assert len({span.span_id for span in spans}) == len(spans)
    known = {span.span_id: span for span in spans}
    for span in spans:
        assert span.end_ns >= span.start_ns, span
        if span.parent_id in known:
            assert known[span.parent_id].trace_id == span.trace_id, span


def record_of(request: InvokeRequest, admitted: Admitted, headers: Headers = ()) -> Record:
    """The record that a run came of."""
    return Record(
        position=admitted.position,
        timestamp_ms=admitted.timestamp_ms,
        key=b"session",
        value=request.to_bytes(),
        headers=headers,
    )


def process_of(make: SpanMaker, admitted: Admitted, headers: Headers = (), *, claim: int | None = None) -> ProcessSpan:
    """The span of a run's request, as the worker begins it."""
    return process_span(make, record_of(admitted.request, admitted, headers), claim=claim or admitted.claim)


def _seen(span: ReadableSpan) -> SpanSeen:
    context = span.context
    assert context is not None
    return SpanSeen(
        name=span.name,
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        trace_state=context.trace_state.to_header(),
        sampled=context.trace_flags.sampled,
        kind=span.kind.name.lower(),
        status=span.status.status_code.name.lower(),
        status_detail=span.status.description or "",
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        attributes=_plain(span.attributes),
        events=tuple(
            EventSeen(name=event.name, time_ns=event.timestamp, attributes=_plain(event.attributes))
            for event in span.events
        ),
        links=tuple(
            LinkSeen(
                trace_id=f"{link.context.trace_id:032x}",
                span_id=f"{link.context.span_id:016x}",
                attributes=_plain(link.attributes),
            )
            for link in span.links
        ),
        resource={},
        scope="test",
    )


def _plain(attributes: object) -> dict[str, Value]:
    plain: dict[str, Value] = {}
    for key, value in dict(attributes or {}).items():  # type: ignore[call-overload]
        plain[key] = list(value) if isinstance(value, tuple) else value
    return plain
