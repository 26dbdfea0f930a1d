"""What spans are made with, and one that can be ended at a time that is past. Nothing here raises into a run."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, Span, SpanContext, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from agentstream.consumers.tracing.content import Content
from agentstream.consumers.tracing.ids import wanted_span_id, wanting
from agentstream.consumers.tracing.quick import Attributes, QuickTracer
from agentstream.consumers.tracing.tokens import AGGREGATED, tokens
from agentstream.producers.spans import clean, failed, parent
from agentstream.schemas import span_names as names
from agentstream.schemas.messages import Usage

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def nanoseconds(instant: datetime) -> int:
    """Since 1970, exact to the microsecond."""
    return (instant - _EPOCH) // _MICROSECOND * 1_000


MAX_HELD: Final = 256
"""Spans below one request that wait for its end. An exporter's queue holds 2,048: one long run must not fill it."""


def _nothing() -> None:
    """What there is to flush where nothing is exported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanError:
    """Why something is shown as failed."""

    code: str
    """For `error.type`."""
    detail: str | None = None
    """One line."""


NEVER_ENDED: Final = SpanError(code=names.NEVER_ENDED)
"""What it was part of is over."""


@dataclass(frozen=True, kw_only=True)
class SpanMaker:
    """What all spans of a worker are made with."""

    tracer: Tracer
    """From the SDK, or one that makes nothing."""
    group_id: str = ""
    """The workers' group."""
    agent_name: str | None = None
    """What the worker's agent is called; None: as its harness."""
    redact: Callable[[str], str] = clean
    """Takes known secrets out of details and names that others chose."""
    content: Content | None = None
    """How messages, arguments and results are shown; None: not at all."""
    older_token_names: bool = False
    """Write prompt_tokens and completion_tokens as well."""
    openinference: bool = False
    """Write OpenInference's names for model, tokens, input and output as well."""
    flush: Callable[[], None] = _nothing
    """Asks that ended spans be exported soon; never waits."""
    now: Callable[[], int] = time.time_ns
    """The wall clock, in nanoseconds."""
    makes_ids: bool = field(init=False, repr=False, compare=False)
    """Whether spans have ids of their own. Without an SDK a caller's traceparent goes through as it came."""
    _quick: QuickTracer | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Worked out once: to ask an abstract class or a protocol costs as much as a span.
        object.__setattr__(self, "makes_ids", not isinstance(self.tracer, NoOpTracer))
        object.__setattr__(self, "_quick", self.tracer if isinstance(self.tracer, QuickTracer) else None)

    @classmethod
    def none(cls) -> "SpanMaker":
        """Makes nothing."""
        return cls(tracer=NoOpTracer())

    def start(  # noqa: PLR0913 - what a span is made of
        self,
        name: str,
        above: SpanContext,
        attributes: dict[str, AttributeValue],
        *,
        shared: tuple[Attributes, ...] = (),
        at: int,
        kind: SpanKind = SpanKind.INTERNAL,
        span_id: int | None,
        links: Sequence[Link] = (),
        held: "Held | None" = None,
    ) -> "TimedSpan":
        """Begin a span below another one `at` an instant, under this id; None: any. The caller ends it.

        `shared`: attributes that others have too, besides its own. `held`: where it waits after its end; None: it
        leaves at once.
        """
        if not name.isascii():
            name = clean(name)
        span = None
        if self._quick is not None:
            span = self._quick.begin(name, above, attributes, shared, at, kind, span_id, links)
        if span is None:
            token = wanted_span_id.set(span_id)
            try:
                span = self.tracer.start_span(name, parent(above), kind, _all(attributes, shared), links, at)
            finally:
                wanted_span_id.reset(token)
        return TimedSpan(span, at, held)

    def start_root(  # noqa: PLR0913 - as above
        self,
        name: str,
        attributes: dict[str, AttributeValue],
        *,
        shared: tuple[Attributes, ...] = (),
        at: int,
        kind: SpanKind = SpanKind.INTERNAL,
        trace_id: str,
        span_id: str,
    ) -> "TimedSpan":
        """Begin a span that has none above it, under these ids; the sampler decides."""
        with wanting(trace_id=trace_id, span_id=span_id):
            return TimedSpan(
                self.tracer.start_span(clean(name), Context(), kind, _all(attributes, shared), None, at), at, None
            )

    def dropped(self, span: "TimedSpan", count: Callable[[], int | None]) -> bool:
        """As `QuickTracer.dropped`: to make eight spans that nobody has room for takes a fifth of a run's time."""
        return self._quick is not None and self._quick.dropped(span.span, count)

    def text(self, text: str) -> str:
        """A text that others chose, fit for a name or an attribute."""
        return clean(self.redact(text))

    def both(self, name: str, openinference: str, value: str) -> Attributes:
        """What was said, under OpenTelemetry's name, and under OpenInference's if it is wanted."""
        return {name: value, openinference: value} if self.openinference else {name: value}

    def usage(self, usages: Collection[Usage]) -> Attributes:
        """Tokens of a model call as attributes; none for no usage, since a made-up 0 would be believed."""
        found = tokens(usages)
        if found and self.older_token_names:
            found[names.PROMPT_TOKENS] = found[names.INPUT_TOKENS]
            found[names.COMPLETION_TOKENS] = found[names.OUTPUT_TOKENS]
        return found

    def aggregated_usage(self, usages: Collection[Usage]) -> Attributes:
        """Tokens of all calls below a span, under other names: backends add up what every span says of its usage, and
        a trace showed twice what it had used."""
        return {AGGREGATED[name]: count for name, count in tokens(usages).items()}

    def llm_usage(self, usages: Collection[Usage]) -> Attributes:
        """The same in OpenInference's names, if they are wanted. Only for model calls: backends add them up."""
        if not usages or not self.openinference:
            return {}
        read, written = sum(each.input_tokens for each in usages), sum(each.output_tokens for each in usages)
        return {
            names.LLM_PROMPT_TOKENS: read,
            names.LLM_COMPLETION_TOKENS: written,
            names.LLM_TOTAL_TOKENS: read + written,
        }


def _all(attributes: dict[str, AttributeValue], shared: tuple[Attributes, ...]) -> Attributes:
    together: dict[str, AttributeValue] = {}
    for each in shared:
        together.update(each)
    return {**together, **attributes}


class TimedSpan:
    """A span that is given all its times. Ended once; what comes after that changes nothing."""

    __slots__ = ("_ended", "_held", "_started", "place", "span")

    def __init__(self, span: Span, started: int, held: "Held | None") -> None:
        self.span = span
        self.place = span.get_span_context()
        """The parent of what is begun below it."""
        self._held = held
        self._started = started
        self._ended = False

    @property
    def is_recording(self) -> bool:
        """Whether anybody will see it: what is costly to make is made only then."""
        return self.span.is_recording()

    def set(self, attributes: Attributes) -> None:
        """Say more about it."""
        if not self._ended:  # the SDK would log a warning
            self.span.set_attributes(attributes)

    def event(self, name: str, at: int, attributes: Attributes | None = None) -> None:
        """Something happened in it."""
        if not self._ended:
            self.span.add_event(name, attributes, max(at, self._started))

    def link(self, link: Link) -> None:
        """It has to do with another span. Also after its end, as long as it has not left."""
        if self.span.is_recording():
            self.span.add_link(link.context, link.attributes)

    def seconds(self, at: int) -> float:
        """From its beginning until then."""
        return max(0, at - self._started) / 1e9

    def end(self, at: int, error: SpanError | None = None) -> None:
        """It ended then, well or not."""
        if self._ended:
            return
        self._ended = True
        if error is not None:
            failed(self.span, error.code, error.detail)
        at = max(at, self._started)
        if self._held is None:
            self.span.end(at)
        else:
            self._held.take(self.span, at)


class Held:
    """What is below a request leaves with it, in one piece. If the worker is killed the next owner writes all of it:
    what had left by then would be there twice, and its tokens would count twice."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        # A deque takes 600 bytes when it is empty, and a run has one.
        self._spans: list[tuple[Span, int]] = []

    def __len__(self) -> int:
        return len(self._spans)

    def take(self, span: Span, at: int) -> None:
        """It ended then. Of too many the oldest leaves."""
        self._spans.append((span, at))
        if len(self._spans) > MAX_HELD:
            oldest, ended = self._spans.pop(0)
            oldest.end(ended)

    def leave(self) -> None:
        """Now, in the order in which they ended."""
        for span, at in self._spans:
            span.end(at)
        self._spans.clear()


def link_to(place: SpanContext, what: str) -> Link:
    """A link to another span; `what` it is."""
    return Link(place, {names.LINK: what})
