"""Begins spans: under the sampler, the limits, the resource and the ids that the SDK read from the environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, ParentBasedTraceIdRatio
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.util.types import AnyValue, Attributes, AttributeValue

from agentstream.infra.telemetry.processors import RoutedProcessor
from agentstream.infra.telemetry.recorded import Limits, RecordedSpan

if TYPE_CHECKING:
    from opentelemetry.util._decorator import _AgnosticContextManager

_INHERITING: Final = (ParentBased, ParentBasedTraceIdRatio)
"""Samplers that, as the environment makes them, record what is below a span that is sampled, and nothing else."""
_SAMPLED: Final = (TraceFlags.SAMPLED, TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_KNOWN: Final = (*_SAMPLED, TraceFlags.DEFAULT, TraceFlags.RANDOM_TRACE_ID)
"""Flags that go on as they are; others lose what is not known of them."""


class RecordingTracer(Tracer):
    """Begins spans."""

    def __init__(
        self,
        provider: sdk.TracerProvider,
        processor: RoutedProcessor,
        limits: Limits,
        scope: InstrumentationScope,
    ) -> None:
        self.take = processor.take
        self.limits = limits
        self.scope = scope
        self.resource: Resource = provider.resource
        self._processor = processor
        self._sampler = provider.sampler
        self._inherits = type(provider.sampler) in _INHERITING
        self._ids = provider.id_generator
        # Under which a context has its span: asked for by the API's function, it takes three calls each time.
        (self._key,) = set_span_in_context(INVALID_SPAN, Context())

    def start_span(  # noqa: PLR0913, PLR0917 - the API's
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Begin one, if the sampler wants it. The caller ends it."""
        above = get_current_span() if context is None else context.get(self._key)
        # A recorded one is told at once: its abstract base asks in Python.
        given = above if type(above) is RecordedSpan or isinstance(above, Span) else INVALID_SPAN
        parent = given.get_span_context() if self._inherits else INVALID_SPAN_CONTEXT
        trace_id, _, _, flags, state, is_valid = parent  # a tuple: each of its properties is a call
        if is_valid and flags in _KNOWN:
            place = SpanContext(trace_id, self._ids.generate_span_id(), False, flags, state)
            if flags not in _SAMPLED:
                return NonRecordingSpan(place)
            span = RecordedSpan(self, name, place, parent, kind, _own(attributes), start_time)
        else:
            asked = self._asked(name, context, kind, attributes, links, start_time)
            if not isinstance(asked, RecordedSpan):
                return asked
            span = asked
        for link in links or ():
            span.add_link(link.context, link.attributes)
        if self._processor.has_targets:
            self._processor.on_start(span)
        return span

    def begin(  # noqa: PLR0913, PLR0917 - as in consumers.tracing.spans.QuickTracer
        self,
        name: str,
        above: SpanContext,
        attributes: dict[str, AttributeValue],
        shared: tuple[Mapping[str, AttributeValue], ...],
        at: int,
        kind: SpanKind,
        span_id: int | None,
        links: Sequence[Link],
    ) -> Span | None:
        """Begin one as `start_span` does, for half its cost; None where the sampler must be asked."""
        trace_id, _, _, flags, state, is_valid = above
        if not (self._inherits and is_valid and flags in _KNOWN):
            return None
        place = SpanContext(trace_id, span_id or self._ids.generate_span_id(), False, flags, state)
        if flags not in _SAMPLED:
            return NonRecordingSpan(place)
        span = RecordedSpan(self, name, place, above, kind, attributes, at, shared)
        for link in links:
            span.add_link(link.context, link.attributes)
        if self._processor.has_targets:
            self._processor.on_start(span)
        return span

    def dropped(self, span: Span, count: Callable[[], int | None]) -> bool:
        """As in consumers.tracing.spans.QuickTracer: if no place has room for one more span."""
        # Where the sampler is asked for each, it is not known how many there would be.
        if not (isinstance(span, RecordedSpan) and self._inherits and span.context[3] in _SAMPLED):
            return False
        if span.is_sampled and self._processor.drops(span, count):
            span.end_time = span.start_time
            return True
        return False

    def _asked(
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] | None,
        start_time: int | None,
    ) -> Span:
        """As the sampler decides it."""
        given = get_current_span(context).get_span_context()
        parent = given if given.is_valid else None
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        result = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
        is_random = self._ids.is_trace_id_random() if parent is None else parent.trace_flags.random_trace_id
        flags = TraceFlags.RANDOM_TRACE_ID if is_random else TraceFlags.DEFAULT
        if result.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        place = SpanContext(trace_id, self._ids.generate_span_id(), False, TraceFlags(flags), result.trace_state)
        if result.decision is Decision.DROP:
            return NonRecordingSpan(place)
        return RecordedSpan(self, name, place, parent, kind, _own(result.attributes), start_time)

    def start_as_current_span(  # noqa: PLR0913, PLR0917 - the API's
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> "_AgnosticContextManager[Span]":
        """Begin one that is current within the block."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        return use_span(span, end_on_exit, record_exception, set_status_on_exception)


def _own(attributes: Attributes) -> dict[str, AnyValue]:
    return {**attributes} if attributes else {}


class RecordingProvider(TracerProvider):
    """Gives tracers whose spans go to a processor."""

    def __init__(self, provider: sdk.TracerProvider, processor: RoutedProcessor) -> None:
        """`provider` has read from the environment which sampler, resource and ids there are. Raises ValueError for
        limits that cannot be used."""
        self._provider = provider
        self._processor = processor
        self._limits = Limits(sdk.SpanLimits())

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """A tracer of this name."""
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version or "", schema_url, attributes
        )
        return RecordingTracer(self._provider, self._processor, self._limits, scope)
