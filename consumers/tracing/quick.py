"""A tracer that takes at once what OpenTelemetry's own takes in several calls: infra's. Any other does as well."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from opentelemetry.trace import Link, Span, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue]


@runtime_checkable
class QuickTracer(Protocol):
    """What a `SpanMaker` asks of its tracer first."""

    def begin(  # noqa: PLR0913, PLR0917 - what a span is made of
        self,
        name: str,
        above: SpanContext,
        attributes: dict[str, AttributeValue],
        shared: tuple[Attributes, ...],
        at: int,
        kind: SpanKind,
        span_id: int | None,
        links: Sequence[Link],
    ) -> Span | None:
        """Begin a span below `above`, under this id, else under a random one. None: it must be asked as usual.

        `attributes` become the span's own; `shared` are those of others too, which nobody changes, and which the span
        does not say again.
        """
        ...

    def dropped(self, span: Span, count: Callable[[], int | None]) -> bool:
        """Whether this span, and all that is left to be made below it, would only be dropped: then they are counted as
        that, `count` of them with itself, and it is over. A `count` of None: they are not."""
        ...
