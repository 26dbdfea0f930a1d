"""Runs' spans that would only be dropped are not made, and are counted as those that are."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing import attempt
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.tracing.process import process_span
from agentstream.consumers.tracing.spans import SpanMaker, nanoseconds
from agentstream.infra.telemetry import recording
from agentstream.infra.telemetry.delivery import Delivery, Losses, Room
from agentstream.infra.telemetry.environment import Batching
from agentstream.infra.telemetry.exporters import CountingSpanExporter
from agentstream.infra.telemetry.ids import WantedIds
from agentstream.infra.telemetry.processors import BoundedProcessor, RoutedProcessor
from agentstream.schemas.events import ReadEvent, TurnEnded, TurnStarted
from agentstream.schemas.headers import TRACE_TARGET
from agentstream.schemas.records import Headers
from agentstream.schemas.trace import TraceContext
from tests.support.spans import record_of
from tests.unit.playing import Scene
from tests.unit.test_spans_of_events import events

START = datetime(2026, 1, 1, tzinfo=UTC)
CALLED = TraceContext(trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id="00f067aa0ba902b7")

TURN: tuple[ReadEvent, ...] = (TurnStarted(turn=1), TurnEnded(turn=1))
"""With its run five spans: `process`, `invoke_agent`, `turn`, `chat`, `send`."""


class Places:
    """Two places that spans go to, whose threads never send; in `default`, `local` and so on by their names."""

    def __init__(self, **rooms: int) -> None:
        self.deliveries = {
            name: Delivery(name, "spans", name, room=Room(count=room, size=10**9)) for name, room in rooms.items()
        }
        batching = Batching(queue=10**6, batch=10**6, delay_ms=3_600_000)
        self.processors = {
            name: BoundedProcessor(CountingSpanExporter(InMemorySpanExporter(), delivery), delivery, batching)
            for name, delivery in self.deliveries.items()
        }

    def tracer(self, *exclusive: str) -> Tracer:
        targets = {name: place for name, place in self.processors.items() if name not in ("default", "local")}
        routed = RoutedProcessor(
            default=[self.processors["default"]],
            local=[self.processors["local"]] if "local" in self.processors else [],
            targets=targets,
            exclusive=frozenset(exclusive),
        )
        provider = TracerProvider(id_generator=WantedIds(), shutdown_on_exit=False)
        return recording.RecordingProvider(provider, routed).get_tracer("test")

    @property
    def waiting(self) -> dict[str, int]:
        return {name: delivery.pending for name, delivery in self.deliveries.items()}

    @property
    def dropped(self) -> dict[str, int]:
        return {name: delivery.losses.dropped for name, delivery in self.deliveries.items()}


@contextmanager
def places(**rooms: int) -> Iterator[Places]:
    made = Places(**rooms)
    try:
        yield made
    finally:
        for processor in made.processors.values():
            processor.shutdown()


def run(tracer: Tracer, told: list[ReadEvent], headers: Headers = (), *, again: bool = False) -> None:
    """A request from being taken to being committed, with these events."""
    admitted = Scene().admitted()
    given = (*((name, value) for name, value in CALLED.to_headers()), *headers)
    process = process_span(SpanMaker(tracer=tracer), record_of(admitted.request, admitted, given), claim=1)
    for number in range(1, 2 + again):
        name = AttemptName(run_id="run", session_id="s", claim=1, attempt=number, attempt_id=f"a{number}")
        spans = process.attempt(name, AgentFacts(model="p/m", harness="h"), START)
        for second, event in enumerate(told, 1):
            spans.saw(event, START + timedelta(seconds=second))
        spans.close(nanoseconds(START + timedelta(hours=1)), None, reason=None, cost=None)
    process.send_trace("results")
    process.committed("completed", None)


@given(st.lists(events, max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_as_many_are_counted_as_would_have_been_made(told: list[ReadEvent], again: bool) -> None:
    with places(default=10_000) as roomy, places(default=1) as full:
        run(roomy.tracer(), told, again=again)
        full.deliveries["default"].admit(1)
        run(full.tracer(), told, again=again)
    made = roomy.deliveries["default"].losses
    assert full.deliveries["default"].losses == Losses(exported=0, failed=0, dropped=made.exported + made.dropped + 1)


def test_nothing_of_a_run_is_made_where_nobody_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr(attempt.AttemptWriter, "saw", lambda *_: begun.append(_))
    with places(default=2) as full:
        assert [full.deliveries["default"].admit(1) for _ in range(2)] == [True, True]
        run(full.tracer(), list(TURN))
        assert (begun, full.dropped) == ([], {"default": 5})
        full.deliveries["default"].arrived(2, 2)
        run(full.tracer(), list(TURN))
        assert begun, "there is room again"


def test_a_place_that_has_room_gets_what_another_has_none_for() -> None:
    with places(default=1, local=100) as some:
        some.deliveries["default"].admit(1)
        run(some.tracer(), list(TURN))
        assert (some.waiting, some.dropped) == ({"default": 1, "local": 5}, {"default": 5, "local": 0})


@pytest.mark.parametrize(("exclusive", "left"), [(("tenant",), 0), ((), 5)])
def test_only_the_places_of_a_run_are_asked_and_told(exclusive: tuple[str, ...], left: int) -> None:
    with places(default=100, tenant=1) as some:
        some.deliveries["tenant"].admit(1)
        tracer = some.tracer(*exclusive)
        run(tracer, list(TURN), ((TRACE_TARGET, b"tenant"),))
        assert (some.waiting, some.dropped) == ({"default": left, "tenant": 1}, {"default": 0, "tenant": 5})
        run(tracer, list(TURN))
        assert (some.waiting["default"], some.dropped["tenant"]) == (left + 5, 5)


def test_the_line_is_that_of_spans_that_were_made(caplog: pytest.LogCaptureFixture) -> None:
    with places(default=1) as full:
        full.deliveries["default"].admit(1)
        for _ in range(3):
            run(full.tracer(), list(TURN))
    assert [each.getMessage() for each in caplog.records] == [
        "spans are lost on the way to default: more than 1 wait; runs are not affected"
    ]
