"""Ids of new spans: those that were asked for, else random ones."""

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from agentstream.consumers.tracing.ids import wanted_span_id, wanted_trace_id


class WantedIds(RandomIdGenerator):
    """Looks at what `consumers.tracing.ids.wanting` set around the start of a span."""

    def generate_span_id(self) -> int:
        """The wanted one, else a random one."""
        return wanted_span_id.get() or super().generate_span_id()

    def generate_trace_id(self) -> int:
        """The wanted one, else a random one."""
        return wanted_trace_id.get() or super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """A wanted id is half of a digest: nothing that others may rely on as random."""
        return wanted_trace_id.get() is None
