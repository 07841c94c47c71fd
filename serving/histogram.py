"""A histogram for the event loop: Prometheus's takes a lock and walks the buckets, at five times the cost."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Child:
    """The histogram of one label value; observed on the event loop alone."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """(upper bound, how many are not above it) of each bucket, and the sum of all values."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class LoopHistogram(Collector):
    """Histograms by one label. buckets: their upper bounds, ascending."""

    def __init__(
        self, name: str, documentation: str, label: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = tuple(map(float, buckets))
        self._children: dict[str, Child] = {}
        registry.register(self)

    def labels(self, value: str) -> Child:
        """The histogram of a label's value; keep it where that is known."""
        if value not in self._children:
            self._children[value] = Child(self._bounds)
        return self._children[value]

    def describe(self) -> Iterable[Metric]:
        """Its name, so that the registry refuses a second one."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=[self._label])

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, child in list(self._children.items()):
            buckets, total = child.cumulative()
            family.add_metric([value], buckets, total)
        yield family
