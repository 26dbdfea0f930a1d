"""Spans as plain values: what the SDK records, under its sampler, limits, resource and ids, for a sixth of the cost.

The SDK's own span has two locks, copies its attributes twice and looks at each value's type: eight spans of a run took
128 µs so, and take 22 here. Attributes are a dict until the span ends.
"""

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AnyValue, Attributes

from agentstream.infra.telemetry.sizes import size_of

if TYPE_CHECKING:
    from agentstream.infra.telemetry.encoding import WrittenSpan

Item = TypeVar("Item")
UNSET: Final = Status(StatusCode.UNSET)


class Bounds:
    """How many attributes something may have, and how long a text may be."""

    __slots__ = ("_longest", "_most", "free")

    def __init__(self, most: int | None, longest: int | None) -> None:
        self._most = most
        self._longest = longest
        self.free = -1 if longest is not None else sys.maxsize if most is None else most
        """So many attributes keep them, whatever they say."""

    def kept(self, attributes: Attributes) -> "dict[str, AnyValue] | BoundedAttributes":
        """As they are where they keep the limits, else what the SDK makes of them."""
        if len(attributes or ()) > self.free:
            return BoundedAttributes(self._most, attributes, max_value_len=self._longest)
        return attributes if type(attributes) is dict else {**(attributes or {})}


class Limits:
    """How much a span may hold, worked out once."""

    def __init__(self, limits: sdk.SpanLimits) -> None:
        self.of_span = Bounds(limits.max_span_attributes, limits.max_span_attribute_length)
        self.of_event = Bounds(limits.max_event_attributes, limits.max_attribute_length)
        self.of_link = Bounds(limits.max_link_attributes, limits.max_attribute_length)
        self.max_events = limits.max_events
        self.max_links = limits.max_links


class Maker(Protocol):
    """What a span takes from the tracer that made it."""

    @property
    def resource(self) -> Resource:
        """Whose span it is."""

    @property
    def scope(self) -> InstrumentationScope:
        """By whom it was made."""

    @property
    def limits(self) -> Limits:
        """How much it may hold."""

    @property
    def take(self) -> "Callable[[RecordedSpan], None]":
        """Where it goes when it has ended; never waits."""


class RecordedEvent(sdk.Event):
    """Something that happened in a span: in the SDK's 400 bytes and four calls, here a fifth of it."""

    # As below.
    __slots__ = ("attributes", "name", "timestamp")
    name: str
    attributes: dict[str, AnyValue] | BoundedAttributes
    timestamp: int

    def __init__(self, name: str, attributes: dict[str, AnyValue] | BoundedAttributes, timestamp: int | None) -> None:
        self.name = name
        self.attributes = attributes
        self.timestamp = time.time_ns() if timestamp is None else timestamp

    @property
    def dropped_attributes(self) -> int:
        """Beyond the limit."""
        return self.attributes.dropped if isinstance(self.attributes, BoundedAttributes) else 0


class RecordedSpan(sdk.ReadableSpan, Span):
    """A span of one thread: nothing here is locked. What is said after its end changes nothing."""

    # Each hides the property of that name in the base class, whose constructor is not called.
    __slots__ = (
        "context",
        "end_time",
        "events",
        "kind",
        "links",
        "maker",
        "name",
        "own",
        "parent",
        "shared",
        "start_time",
        "status",
        "written",
    )
    maker: Maker
    """What made it."""
    name: str
    context: SpanContext
    parent: SpanContext | None
    kind: SpanKind
    own: dict[str, AnyValue] | BoundedAttributes
    """Its attributes, without those that are shared."""
    shared: tuple[Mapping[str, AnyValue], ...]
    """Attributes that other spans have as well, each written once for all of them."""
    start_time: int
    end_time: int | None
    events: Sequence[sdk.Event]
    links: Sequence[Link]
    status: Status
    written: "WrittenSpan | None"
    """As it stands in a request, once it is written; for all places that it goes to."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a span is made of
        self,
        maker: Maker,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AnyValue],
        start_time: int | None,
        shared: tuple[Mapping[str, AnyValue], ...] = (),
    ) -> None:
        """`attributes` are the span's from now on; none of them is among the `shared` ones, which stay as they are."""
        self.maker = maker
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.own = attributes
        self.shared = shared
        self.start_time = time.time_ns() if start_time is None else start_time
        self.end_time = None
        self.events = self.links = ()
        self.status = UNSET
        self.written = None

    def get_span_context(self) -> SpanContext:
        """Its place."""
        return self.context

    def is_recording(self) -> bool:
        """Until it has ended."""
        return self.end_time is None

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Say more about it."""
        if self.end_time is None:
            self.own[key] = value

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Say more about it."""
        if self.end_time is None:
            self.own.update(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Something happened in it."""
        if self.end_time is None:
            limits = self.maker.limits
            event = RecordedEvent(name, limits.of_event.kept(attributes) if attributes else {}, timestamp)
            self.events = _with(self.events, event, limits.max_events)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """It has to do with another span."""
        if self.end_time is None and (context.is_valid or attributes or context.trace_state):
            limits = self.maker.limits
            self.links = _with(self.links, Link(context, limits.of_link.kept(attributes)), limits.max_links)

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
            bounds = self.maker.limits.of_span
            count = len(self.own)
            for each in self.shared:
                count += len(each)
            if count > bounds.free:
                self.own, self.shared = bounds.kept(self.attributes), ()
            self.maker.take(self)

    @property
    def attributes(self) -> Mapping[str, AnyValue]:
        """All that is said of it."""
        if not self.shared:
            return self.own
        together: dict[str, AnyValue] = {}
        for each in (*self.shared, self.own):
            together.update(each)
        return together

    @property
    def is_sampled(self) -> bool:
        """Whether it is exported."""
        return bool(self.context[3] & TraceFlags.SAMPLED)

    @property
    def resource(self) -> Resource:
        """Whose span it is."""
        return self.maker.resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope:
        """By whom it was made."""
        return self.maker.scope

    @property
    def size(self) -> int:
        """Bytes it holds, about."""
        return size_of(self)

    @property
    def dropped_attributes(self) -> int:
        """Beyond the limit."""
        return self.own.dropped if isinstance(self.own, BoundedAttributes) else 0

    @property
    def dropped_events(self) -> int:
        """Beyond the limit."""
        return self.events.dropped if isinstance(self.events, BoundedList) else 0

    @property
    def dropped_links(self) -> int:
        """Beyond the limit."""
        return self.links.dropped if isinstance(self.links, BoundedList) else 0


def _with(items: Sequence[Item], item: Item, most: int | None) -> Sequence[Item]:
    """One more; beyond the limit the oldest is dropped, and counted, as the SDK does."""
    if isinstance(items, BoundedList) or (most is not None and len(items) >= most):
        kept = items if isinstance(items, BoundedList) else BoundedList.from_seq(most, items)
        kept.append(item)
        return kept
    return (*items, item)
