"""In front of each exporter a queue with a bound, and a thread that flushes it when asked; which span goes to which."""

import threading
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agentstream.infra.telemetry.delivery import Delivery
from agentstream.infra.telemetry.environment import Batching
from agentstream.infra.telemetry.exporters import CountingSpanExporter
from agentstream.infra.telemetry.recorded import RecordedSpan, held_by

TARGET = "agentstream.trace_target"
"""Attribute that names the target of a span and of those below it."""
GATHER_SECONDS = 0.2
"""A flush that was asked for waits this long for more: 300 runs a second end in 5 exports, not in 300."""


class BoundedProcessor(BatchSpanProcessor):
    """The official batch processor. What it would drop is dropped here first, where it is counted.

    It waits for room nowhere: ending a span takes microseconds, whatever the collector does.
    """

    def __init__(self, exporter: CountingSpanExporter, delivery: Delivery, batching: Batching) -> None:
        super().__init__(
            exporter,
            max_queue_size=delivery.capacity,
            schedule_delay_millis=batching.delay_ms,
            max_export_batch_size=batching.batch,
        )
        self.delivery = delivery
        self._exporter = exporter
        self._asked = threading.Event()
        self._ending = threading.Event()
        threading.Thread(target=self._flush_when_asked, name=f"flush {delivery.name}", daemon=True).start()

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that is sampled, or drop and count it."""
        # One that ends after the last export was admitted and never leaves: the books count it as not sent.
        if _is_sampled(span) and self.delivery.admit(held_by(span)) and not self._ending.is_set():
            super().on_end(span)

    def ask_to_flush(self) -> None:
        """Have what has ended exported soon; never waits."""
        if not self._asked.is_set():  # many ends, one flush: setting it again costs more than looking
            self._asked.set()

    def shutdown(self) -> None:
        """Export what is queued, and end. Waits for the collector: call `abandon` meanwhile to cut it short."""
        self._ending.set()
        self._asked.set()
        super().shutdown()  # type: ignore[no-untyped-call]

    def abandon(self) -> None:
        """Let a shutdown that hangs go; what it holds is counted as dropped."""
        self._exporter.abandon()

    def _flush_when_asked(self) -> None:
        while True:
            self._asked.wait()
            if self._ending.wait(GATHER_SECONDS):
                return
            self._asked.clear()  # first, so that what ends meanwhile is flushed by another turn
            self.force_flush()


class RoutedProcessor:
    """Gives each span to the default exporters and, if it or a span above it names a target, to that one's."""

    def __init__(
        self,
        default: Sequence[BoundedProcessor],
        local: Sequence[BoundedProcessor],
        targets: Mapping[str, BoundedProcessor],
        exclusive: frozenset[str],
    ) -> None:
        """`local` ones get every span; `exclusive` names targets whose spans the default ones do not get."""
        self._default = default
        self._local = local
        self._targets = targets
        self.has_targets = bool(targets)
        """Whether it must be told of spans that begin."""
        self._exclusive = exclusive
        # Of open spans only, and only of those with a target: a handful, whatever becomes of their ends.
        self._open: dict[int, str] = {}

    def on_start(self, span: RecordedSpan) -> None:
        """Remember the target of a span that has one."""
        named = span.attributes.get(TARGET)
        if not isinstance(named, str) and span.parent is not None:
            named = self._open.get(span.parent.span_id)
        if isinstance(named, str) and named in self._targets:
            self._open[span.context.span_id] = named

    def on_end(self, span: RecordedSpan) -> None:
        """Hand it on."""
        named = self._open.pop(span.context.span_id, None) if self._open else None
        for processor in self._local:
            processor.on_end(span)
        if named is not None:
            self._targets[named].on_end(span)
        if named not in self._exclusive:
            for processor in self._default:
                processor.on_end(span)


def _is_sampled(span: ReadableSpan) -> bool:
    return span.context is not None and span.context.trace_flags.sampled
