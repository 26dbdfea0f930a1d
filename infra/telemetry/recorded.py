"""Spans as plain values: what the SDK records, under its sampler, limits, resource and ids, for half the cost.

The SDK's own span has two locks, copies its attributes twice and looks at each value's type: nine spans of a run took
215 µs so, with the making of what stands in them, and take 90 here. Attributes are a dict until the span ends.
"""

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

from agentstream.infra.telemetry.sizes import size_of

Item = TypeVar("Item")
_UNSET: Final = Status(StatusCode.UNSET)


class Taker(Protocol):
    """Where spans go that have ended."""

    def on_end(self, span: "RecordedSpan") -> None:
        """Take one; never waits."""


class Maker(Protocol):
    """What a span takes from the tracer that made it."""

    @property
    def resource(self) -> Resource:
        """Whose span it is."""

    @property
    def scope(self) -> InstrumentationScope:
        """By whom it was made."""

    @property
    def limits(self) -> sdk.SpanLimits:
        """How much it may hold."""

    @property
    def processor(self) -> Taker:
        """Where it goes."""


class RecordedSpan(sdk.ReadableSpan, Span):
    """A span of one thread: nothing here is locked. What is said after its end changes nothing."""

    # Each hides the property of that name in the base class, whose constructor is not called.
    __slots__ = (
        "_tracer",
        "attributes",
        "context",
        "end_time",
        "events",
        "instrumentation_scope",
        "kind",
        "links",
        "name",
        "parent",
        "resource",
        "size",
        "start_time",
        "status",
    )
    name: str
    context: SpanContext
    parent: SpanContext | None
    kind: SpanKind
    attributes: dict[str, AnyValue] | BoundedAttributes
    start_time: int
    end_time: int | None
    events: Sequence[sdk.Event]
    links: Sequence[Link]
    status: Status
    resource: Resource
    instrumentation_scope: InstrumentationScope
    size: int
    """Bytes it holds, about, once it has ended; 0 before."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a span is made of
        self,
        tracer: Maker,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        start_time: int | None,
    ) -> None:
        self._tracer = tracer
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.attributes = {**attributes} if attributes else {}
        self.start_time = time.time_ns() if start_time is None else start_time
        self.end_time = None
        self.events = self.links = ()
        self.status = _UNSET
        self.resource = tracer.resource
        self.instrumentation_scope = tracer.scope
        self.size = 0

    def get_span_context(self) -> SpanContext:
        """Its place."""
        return self.context

    def is_recording(self) -> bool:
        """Until it has ended."""
        return self.end_time is None

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Say more about it."""
        if self.end_time is None:
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Say more about it."""
        if self.end_time is None:
            self.attributes.update(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Something happened in it."""
        if self.end_time is None:
            limits = self._tracer.limits
            said = _bounded(attributes, limits.max_event_attributes, limits.max_attribute_length)
            self.events = _with(self.events, sdk.Event(name, said, timestamp), limits.max_events)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """It has to do with another span."""
        if self.end_time is None and (context.is_valid or attributes or context.trace_state):
            limits = self._tracer.limits
            said = _bounded(attributes, limits.max_link_attributes, limits.max_attribute_length)
            self.links = _with(self.links, Link(context, said), limits.max_links)

    def update_name(self, name: str) -> None:
        """It is called something else."""
        if self.end_time is None:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """How it went. What is ok stays so."""
        new = status if isinstance(status, Status) else Status(status, description)
        if self.end_time is None and not (new.is_unset or self.status.status_code is StatusCode.OK):
            self.status = new

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """An event with what it is and where it was raised."""
        said: dict[str, AnyValue] = {
            "exception.type": type(exception).__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """It is over, and goes to the exporters."""
        if self.end_time is None:
            self.end_time = time.time_ns() if end_time is None else end_time
            limits = self._tracer.limits
            most, longest = limits.max_span_attributes, limits.max_span_attribute_length
            if longest is not None or (most is not None and len(self.attributes) > most):
                self.attributes = BoundedAttributes(most, self.attributes, max_value_len=longest)
            self.size = size_of(self)
            self._tracer.processor.on_end(self)

    @property
    def dropped_attributes(self) -> int:
        """Beyond the limit."""
        return self.attributes.dropped if isinstance(self.attributes, BoundedAttributes) else 0

    @property
    def dropped_events(self) -> int:
        """Beyond the limit."""
        return self.events.dropped if isinstance(self.events, BoundedList) else 0

    @property
    def dropped_links(self) -> int:
        """Beyond the limit."""
        return self.links.dropped if isinstance(self.links, BoundedList) else 0


def held_by(span: sdk.ReadableSpan) -> int:
    """Bytes that an ended span holds, about."""
    return span.size if isinstance(span, RecordedSpan) else size_of(span)


def _bounded(
    attributes: Attributes, most: int | None, longest: int | None
) -> "dict[str, AnyValue] | BoundedAttributes":
    """As they are where they keep the limits, else what the SDK makes of them."""
    if longest is not None or (most is not None and len(attributes or ()) > most):
        return BoundedAttributes(most, attributes, max_value_len=longest)
    return attributes if isinstance(attributes, dict) else {**(attributes or {})}


def _with(items: Sequence[Item], item: Item, most: int | None) -> Sequence[Item]:
    """One more; beyond the limit the oldest is dropped, and counted, as the SDK does."""
    if isinstance(items, BoundedList) or (most is not None and len(items) >= most):
        kept = items if isinstance(items, BoundedList) else BoundedList.from_seq(most, items)
        kept.append(item)
        return kept
    return (*items, item)
