"""What serves and what the process takes, read when Prometheus asks."""

from collections.abc import Iterable

import psutil  # type: ignore[import-untyped]
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from resources.clock import Clock
from serving.predictors import Predictors


class State(Collector):
    """A Prometheus collector: bundles by horizon, and this process's CPU and memory on any system."""

    def __init__(self, predictors: Predictors, clock: Clock) -> None:
        self._predictors = predictors
        self._clock = clock
        self._process = psutil.Process()

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the predictors before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("tenor_ready", "1 once a bundle serves", value=float(self._predictors.ready()))
        yield from self._bundles()
        used = self._process.cpu_times()
        yield CounterMetricFamily("process_cpu_seconds", "CPU time of the service", value=used.user + used.system)
        memory = self._process.memory_info().rss
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory of the service", value=memory)
        yield GaugeMetricFamily("process_threads", "Threads of the service", value=self._process.num_threads())

    def _bundles(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("tenor_bundle_info", "1 for each bundle that answers", labels=["horizon", "bundle"])
        number = GaugeMetricFamily("tenor_bundle_number", "Its entry of the promotion ledger", labels=["horizon"])
        age = GaugeMetricFamily("tenor_model_age_seconds", "Since it was first promoted", labels=["horizon"])
        refused = GaugeMetricFamily("tenor_bundle_refused", "1 where the ledger's word is refused", labels=["horizon"])
        now = self._clock.now()
        for horizon in self._predictors.horizons():
            refused.add_metric([horizon], float(horizon in self._predictors.refusals))
            if predictor := self._predictors.get(horizon):
                info.add_metric([horizon, predictor.bundle.id], 1.0)
                number.add_metric([horizon], predictor.entry.number)
                age.add_metric([horizon], (now - predictor.promoted).total_seconds())
        return info, number, age, refused
