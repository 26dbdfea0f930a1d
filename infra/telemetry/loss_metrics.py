"""The losses as measurements, under OpenTelemetry's names for them.

Source: semantic conventions 1.41, "OpenTelemetry SDK metrics". The SDK counts the same only if a variable of its own
asks for it, and neither rejected spans nor those that this process left behind when it ended.
"""

from collections.abc import Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from agentstream.infra.telemetry.delivery import Delivery

EXPORTED_SPANS = "otel.sdk.exporter.span.exported"
EXPORTED_POINTS = "otel.sdk.exporter.metric_data_point.exported"
PROCESSED_SPANS = "otel.sdk.processor.span.processed"
QUEUED_SPANS = "otel.sdk.processor.span.queue.size"
QUEUE_CAPACITY = "otel.sdk.processor.span.queue.capacity"
_COMPONENT = "otel.component.name"
_ERROR = "error.type"
_SCOPE = "agentstream.telemetry"


def observe_losses(provider: MeterProvider, deliveries: Sequence[Delivery]) -> None:
    """Create the instruments; they read the books when measurements are collected."""
    meter = provider.get_meter(_SCOPE)
    spans = [delivery for delivery in deliveries if delivery.capacity]
    points = [delivery for delivery in deliveries if not delivery.capacity]

    def exported(of: Sequence[Delivery]) -> Iterable[Observation]:
        for delivery in of:
            losses = delivery.losses
            yield Observation(losses.exported, {_COMPONENT: delivery.name})
            yield Observation(losses.failed, {_COMPONENT: delivery.name, _ERROR: "export_failed"})

    def exported_spans(_: CallbackOptions) -> Iterable[Observation]:
        return exported(spans)

    def exported_points(_: CallbackOptions) -> Iterable[Observation]:
        return exported(points)

    def processed(_: CallbackOptions) -> Iterable[Observation]:
        for delivery in spans:
            losses = delivery.losses
            yield Observation(losses.exported + losses.failed, {_COMPONENT: delivery.name})
            yield Observation(losses.dropped, {_COMPONENT: delivery.name, _ERROR: "queue_full"})

    def queued(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(delivery.pending, {_COMPONENT: delivery.name}) for delivery in spans]

    def capacity(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(delivery.capacity, {_COMPONENT: delivery.name}) for delivery in spans]

    meter.create_observable_counter(
        EXPORTED_SPANS, [exported_spans], "{span}", "Spans whose export has ended; error.type: they did not arrive."
    )
    meter.create_observable_counter(
        PROCESSED_SPANS, [processed], "{span}", "Spans that left the queue; error.type: they were dropped."
    )
    meter.create_observable_up_down_counter(QUEUED_SPANS, [queued], "{span}", "Spans that wait or are under way.")
    meter.create_observable_up_down_counter(QUEUE_CAPACITY, [capacity], "{span}", "Spans that may wait.")
    if points:
        meter.create_observable_counter(
            EXPORTED_POINTS, [exported_points], "{data_point}", "Data points whose export has ended; as for spans."
        )
