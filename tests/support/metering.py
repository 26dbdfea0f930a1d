"""Metrics measured by the real SDK and read in memory."""

from collections.abc import Iterator

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from agentstream.consumers.metrics.instruments import Metrics

Labels = tuple[tuple[str, str], ...]


class Meters:
    """A reader and the metrics it reads."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self.metrics = Metrics(self.provider.get_meter("test"), input_topic="requests", group_id="workers")

    def sums(self, name: str) -> dict[Labels, float]:
        """The value of each series of a metric; of a histogram, the sum of what it recorded. Zeros are left out.

        A worker that is given the provider has metrics of its own beside those here: both are added up.
        """
        found: dict[Labels, float] = {}
        for labels, point in self._points(name):
            value = point.sum if isinstance(point, HistogramDataPoint) else point.value
            found[labels] = found.get(labels, 0) + value
        return {labels: value for labels, value in found.items() if value}

    def series(self, name: str) -> set[Labels]:
        """All series of a metric, those that stand at zero as well."""
        return {labels for labels, _ in self._points(name)}

    def counts(self, name: str) -> dict[Labels, int]:
        """How often each series of a histogram was recorded."""
        return {labels: point.count for labels, point in self._points(name) if isinstance(point, HistogramDataPoint)}

    def _points(self, name: str) -> Iterator[tuple[Labels, HistogramDataPoint | NumberDataPoint]]:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == name:
                    for point in metric.data.data_points:
                        assert isinstance(point, HistogramDataPoint | NumberDataPoint)
                        yield tuple(sorted((key, str(value)) for key, value in (point.attributes or {}).items())), point
