"""Counters that are added up here, and read when somebody collects."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from agentstream.consumers.metrics.names import MetricName

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Tally:
    """One counter, of few series. The SDK's takes 5 µs an event to clean and sort its labels; this takes 0.2."""

    def __init__(self, meter: Meter, metric: MetricName, *labels: str, always: Mapping[str, str] = _NOTHING) -> None:
        """`labels`: their names, in the order in which `add` is given their values; `always`: the same for all."""
        self._labels = labels
        self._always = always
        self._sums: dict[tuple[str | None, ...], int] = {}
        meter.create_observable_counter(metric.name, [self._observe], metric.unit, metric.description)

    def add(self, count: int, *values: str | None) -> None:
        """So many more; a label whose value is None is left out."""
        self._sums[values] = self._sums.get(values, 0) + count

    def _observe(self, _: CallbackOptions) -> list[Observation]:
        # Copied at one stroke: whoever collects does it in a thread of his own.
        return [Observation(count, self._labelled(values)) for values, count in list(self._sums.items())]

    def _labelled(self, values: tuple[str | None, ...]) -> dict[str, str]:
        named = zip(self._labels, values, strict=True)
        return {**self._always, **{name: value for name, value in named if value is not None}}
