"""Metrics measured by the real SDK and read in memory."""

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
        """The value of each series of a metric; of a histogram, the sum of what it recorded."""
        data = self._reader.get_metrics_data()
        found: dict[Labels, float] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            labels = tuple(sorted((key, str(value)) for key, value in (point.attributes or {}).items()))
                            found[labels] = _value(point)
        return found


def _value(point: object) -> float:
    match point:
        case HistogramDataPoint():
            return point.sum
        case NumberDataPoint():
            return point.value
    raise TypeError(type(point).__name__)
