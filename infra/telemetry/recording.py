"""Begins spans: under the sampler, the limits, the resource and the ids that the SDK read from the environment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, ParentBasedTraceIdRatio
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_current_span,
    use_span,
)
from opentelemetry.util.types import Attributes

from agentstream.infra.telemetry.processors import RoutedProcessor
from agentstream.infra.telemetry.recorded import RecordedSpan

if TYPE_CHECKING:
    from opentelemetry.util._decorator import _AgnosticContextManager

_INHERITING: Final = (ParentBased, ParentBasedTraceIdRatio)
"""Samplers that, as the environment makes them, record what is below a local span that is recorded."""


class RecordingTracer(Tracer):
    """Begins spans."""

    def __init__(
        self,
        provider: sdk.TracerProvider,
        processor: RoutedProcessor,
        limits: sdk.SpanLimits,
        scope: InstrumentationScope,
    ) -> None:
        self.processor = processor
        self.limits = limits
        self.scope = scope
        self.resource: Resource = provider.resource
        self._sampler = provider.sampler
        self._inherits = type(provider.sampler) in _INHERITING
        self._ids = provider.id_generator

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
        above = get_current_span(context)
        parent: SpanContext | None
        if isinstance(above, RecordedSpan) and self._inherits:
            parent = above.context
            span_id = self._ids.generate_span_id()
            place = SpanContext(parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state)
        else:
            given = above.get_span_context()
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
            attributes = result.attributes
        span = RecordedSpan(self, name, place, parent, kind, attributes, start_time)
        for link in links or ():
            span.add_link(link.context, link.attributes)
        if self.processor.has_targets:
            self.processor.on_start(span)
        return span

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


class RecordingProvider(TracerProvider):
    """Gives tracers whose spans go to a processor."""

    def __init__(self, provider: sdk.TracerProvider, processor: RoutedProcessor) -> None:
        """`provider` has read from the environment which sampler, resource and ids there are. Raises ValueError for
        limits that cannot be used."""
        self._provider = provider
        self._processor = processor
        self._limits = sdk.SpanLimits()

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
