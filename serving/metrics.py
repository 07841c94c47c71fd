"""What the service counts, for Prometheus: plain attributes, one registry per application."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from serving.histogram import LoopHistogram

disable_created_metrics()  # a second series per series, which nobody asks for

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a prediction on the event loop to a long request from bars, in seconds.
LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """Counters, gauges and histograms of one running service. Bind labels once (`.labels(…)`): it is the dear part."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tenor_requests_total", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = LoopHistogram(
            "tenor_request_seconds",
            "From a request's headers to its answer",
            "route",
            buckets=LATENCY,
            registry=registry,
        )
        self.rows = Counter("tenor_predictions_total", "Rows predicted", ["horizon", "route"], registry=registry)
        self.score_seconds = LoopHistogram(
            "tenor_score_seconds",
            "From rows to predictions, waiting included",
            "horizon",
            buckets=LATENCY,
            registry=registry,
        )
        self.batch_rows = LoopHistogram(
            "tenor_batch_rows", "Rows predicted in one pass", "where", buckets=ROWS, registry=registry
        )
        self.batch_requests = LoopHistogram(
            "tenor_batch_requests", "Requests predicted in one pass", "where", buckets=ROWS, registry=registry
        )
        self.waiting = Gauge("tenor_waiting_requests", "Requests that wait for the compute thread", registry=registry)
        self.waiting_rows = Gauge("tenor_waiting_rows", "Rows that wait for the compute thread", registry=registry)
        self.bodies = Gauge("tenor_waiting_bodies", "Requests whose JSON waits to be parsed", registry=registry)
        self.body_bytes = Gauge("tenor_waiting_body_bytes", "Bytes of JSON that wait to be parsed", registry=registry)
        self.pushes = Gauge("tenor_waiting_pushes", "Pushes that wait to be durable", registry=registry)
        self.push_bars = Gauge("tenor_waiting_bars", "Bars that these bring", registry=registry)
        self.reads = Gauge("tenor_waiting_reads", "Questions that wait for the tables", registry=registry)
        self.read_rows = Gauge("tenor_waiting_read_rows", "Rows that these ask for", registry=registry)
        self.log_rows = Counter(
            "tenor_log_rows_total", "Answers written to the prediction log", ["role"], registry=registry
        )
        self.log_dropped = Counter(
            "tenor_log_dropped_total", "Answers the prediction log had no room for", registry=registry
        )
        self.log_failures = Counter(
            "tenor_log_failures_total", "Writes of the log that failed; tried again", registry=registry
        )
        self.log_waiting = Gauge("tenor_log_waiting_rows", "Answers that wait to be written", registry=registry)
        self.helper_memory = Gauge(
            "tenor_helper_memory_bytes",
            "Memory of the process beside the service, 0 where none runs",
            registry=registry,
        )
        self.shadow_failures = Counter(
            "tenor_shadow_failures_total", "Rows the challenger could not score", registry=registry
        )
        self.shed = Counter("tenor_shed_total", "Requests refused because too many wait", ["why"], registry=registry)
        self.swaps = Counter("tenor_swaps_total", "Bundles that took over the traffic", ["horizon"], registry=registry)
        self.pushed = Counter("tenor_pushed_bars_total", "Pushed bars", ["horizon", "what"], registry=registry)
        self.sections = Counter("tenor_sections_total", "Sections closed", ["horizon", "by"], registry=registry)
        self.section_failures = Counter(
            "tenor_section_failures_total", "Sections without signals, for an error", ["horizon"], registry=registry
        )
        self.section_seconds = Histogram(
            "tenor_section_seconds",
            "From a section's closing to its signals on the streams",
            ["horizon"],
            buckets=LATENCY,
            registry=registry,
        )
        self.data_age = Gauge(
            "tenor_data_age_seconds", "Time since the start of the newest bar", ["horizon"], registry=registry
        )
        self.stream_readers = Gauge("tenor_stream_readers", "Readers of /stream", registry=registry)
        self.stream_dropped = Counter("tenor_stream_dropped_total", "Readers that were too slow", registry=registry)
        self.cache = Counter(
            "tenor_cache_total",
            "Queries of /api/data and /api/features: answered from memory (hit) or from the tables (miss)",
            ["route", "outcome"],
            registry=registry,
        )

    def swapped(self, horizon: str, swap: object) -> None:
        """Count a swap; an observer of the predictors."""
        self.swaps.labels(horizon).inc()

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)
