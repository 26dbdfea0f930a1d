"""In front of each exporter a queue with a bound, and a thread that flushes it when asked; which span goes to which."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.trace import TraceFlags

from agentstream.infra.telemetry.delivery import Delivery
from agentstream.infra.telemetry.environment import Batching
from agentstream.infra.telemetry.exporters import CountingSpanExporter, Waiting
from agentstream.infra.telemetry.recorded import RecordedSpan

TARGET = "agentstream.trace_target"
"""Attribute that names the target of a span and of those below it."""
GATHER_SECONDS = 0.2
"""A flush that was asked for waits this long for more: 300 runs a second end in 5 exports, not in 300."""


class BoundedProcessor:
    """A queue with a bound, and a thread that exports what is in it.

    It waits for room nowhere: ending a span takes microseconds, whatever the collector does. In the SDK's place, since
    that one's flush goes on for as long as spans come, and sends what came during the last request: of 13,500 spans in
    a second 90 a request, which costs as much again as to make them.
    """

    def __init__(self, exporter: CountingSpanExporter, delivery: Delivery, batching: Batching) -> None:
        self.delivery = delivery
        self._exporter = exporter
        self._batch = batching.batch
        self._delay_s = batching.delay_ms / 1_000
        self._queue: deque[Waiting] = deque()
        self._asked = threading.Event()
        """Something is to be done: a flush, a full batch, the end."""
        self._full = threading.Event()
        """There is no more to gather: a batch is full, or this is the end."""
        self._ending = False
        self._thread = threading.Thread(target=self._serve, name=f"export {delivery.name}", daemon=True)
        self._thread.start()

    def on_end(self, span: RecordedSpan) -> None:
        """Queue a span that is sampled, or drop and count it."""
        delivery = self.delivery
        if not span.context[3] & TraceFlags.SAMPLED:
            return
        if delivery.is_full:  # it is not written only to be dropped
            delivery.drop(1)
            return
        waiting = self._exporter.waiting(span)
        # One that ends after the last export was admitted and never leaves: the books count it as not sent.
        if waiting is not None and delivery.admit(waiting.size) and not self._ending:
            self._queue.append(waiting)
            if len(self._queue) >= self._batch and not self._full.is_set():
                self._full.set()
                self._asked.set()

    def ask_to_flush(self) -> None:
        """Have what has ended exported soon; never waits."""
        if not self._asked.is_set():  # many ends, one flush: setting it again costs more than looking
            self._asked.set()

    def shutdown(self) -> None:
        """Export what is queued, and end. Waits for the collector: call `abandon` meanwhile to cut it short."""
        self._ending = True
        self._full.set()
        self._asked.set()
        self._thread.join()
        self._exporter.shutdown()

    def abandon(self) -> None:
        """Let a shutdown that hangs go; what it holds is counted as dropped."""
        self._exporter.abandon()

    def _serve(self) -> None:
        # What instruments the HTTP library would else make spans of exports, and exports of those.
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        while not self._ending:
            if self._asked.wait(self._delay_s):
                self._full.wait(GATHER_SECONDS)
            self._asked.clear()  # first, so that what ends meanwhile is exported by another turn
            self._full.clear()
            self._export(len(self._queue))
        self._export(len(self._queue))

    def _export(self, count: int) -> None:
        """So many, the oldest first. Of more than one batch what does not fill another waits for its turn."""
        while count > 0:
            batch = [self._queue.popleft() for _ in range(min(count, self._batch))]
            self._exporter.export(batch)
            count -= len(batch)
            if 0 < count < self._batch and not self._ending:
                self._asked.set()
                return


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
        self._everywhere = (*local, *default)
        self.take: Callable[[RecordedSpan], None] = (
            self._everywhere[0].on_end if len(self._everywhere) == 1 and not targets else self.on_end
        )
        """Takes a span that has ended: where there is but one place for all, that one does."""

    def on_start(self, span: RecordedSpan) -> None:
        """Remember the target of a span that has one."""
        named = span.own.get(TARGET)
        if not isinstance(named, str) and span.parent is not None:
            named = self._open.get(span.parent.span_id)
        if isinstance(named, str) and named in self._targets:
            self._open[span.context.span_id] = named

    def on_end(self, span: RecordedSpan) -> None:
        """Hand it on."""
        for place in self._places(span):
            place.on_end(span)
        self._open.pop(span.context.span_id, None)

    def drops(self, span: RecordedSpan, count: Callable[[], int | None]) -> bool:
        """Whether this one and all below it would only be dropped, everywhere: then so many are counted as that."""
        places = self._places(span)
        if not all(place.delivery.is_full for place in places) or (number := count()) is None:
            return False
        for place in places:
            place.delivery.drop(number)
        self._open.pop(span.context.span_id, None)
        return True

    def _places(self, span: RecordedSpan) -> Sequence[BoundedProcessor]:
        """Where it goes."""
        named = self._open.get(span.context.span_id) if self._open else None
        if named is None:
            return self._everywhere
        return (*self._local, self._targets[named], *(() if named in self._exclusive else self._default))
