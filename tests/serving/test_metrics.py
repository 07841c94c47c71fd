"""What the service tells of itself: metrics for Prometheus, a line per request, traces where they are asked for."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quant.bundle import Bundle
from resources.clock import FixedClock
from resources.inference import Inference
from resources.registry import Registry
from serving import tracing
from serving.access_lines import AccessLines
from serving.histogram import LoopHistogram
from serving.metrics import LATENCY
from tests.serving.conftest import Serve

INFER = "/v2/models/{model}/infer"
BODY = {"inputs": [{"name": "factors", "shape": [2, 3], "datatype": "FP32", "data": [0.1, None, 0.3] * 2}]}


def scrape(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their labels' names …) -> value."""
    text = client.get("/metrics").raise_for_status().text
    families = list(text_string_to_metric_families(text))
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_requests_are_counted_by_pattern_method_and_status(client: httpx.Client) -> None:
    for _ in range(3):
        assert client.post("/v2/models/5m/infer", json=BODY).status_code == 200
    client.post("/v2/models/6m/infer", json=BODY)
    client.get("/models/5m")
    for number in range(20):
        client.get(f"/made/up/{number}")
    found = scrape(client)
    assert found["tenor_requests_total", "POST", INFER, "200"] == 3
    assert found["tenor_requests_total", "POST", INFER, "404"] == 1
    assert found["tenor_requests_total", "GET", "/models/{horizon}", "200"] == 1
    assert found["tenor_requests_total", "GET", "other", "404"] == 20  # anybody can make up paths
    assert found["tenor_request_seconds_count", INFER] == 4
    assert 0 < found["tenor_request_seconds_sum", INFER] < 10
    assert not [key for key in found if "made" in str(key)]


def test_predictions_batches_bundles_and_the_process_are_measured(
    inference: Inference, client: httpx.Client, registry: Registry, bundles: list[Bundle]
) -> None:
    client.post("/v2/models/5m/infer", json=BODY).raise_for_status()
    inference.predict_rows("5m", bundles[0].golden.drop("prediction").head(3))
    registry.promote("5m", bundles[1].id, "better")
    inference.load("5m")
    found = scrape(client)
    assert found["tenor_predictions_total", "5m", INFER] == 2
    assert found["tenor_predictions_total", "5m", "/predict"] == 3
    assert found["tenor_batch_rows_sum", "event loop"] == 5
    assert found["tenor_batch_requests_count", "event loop"] == 2
    assert found["tenor_score_seconds_count", "5m"] == 2
    assert found["tenor_swaps_total", "5m"] == 2
    assert found["tenor_bundle_info", bundles[1].id, "5m"] == 1
    assert ("tenor_bundle_info", bundles[0].id, "5m") not in found
    assert found["tenor_bundle_number", "5m"] == 2
    assert 0 <= found["tenor_model_age_seconds", "5m"] < 300
    assert found["tenor_bundle_refused", "5m"] == 0
    assert found["tenor_ready",] == 1
    assert found["process_cpu_seconds_total",] > 0.1
    assert found["process_resident_memory_bytes",] > 50e6


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 40)), max_size=40))
def test_our_histogram_says_what_the_librarys_says(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    quick = LoopHistogram("tenor_x_seconds", "X", "route", buckets=LATENCY, registry=ours)
    slow = Histogram("tenor_x_seconds", "X", ["route"], buckets=LATENCY, registry=theirs)
    for label, value in observed:
        quick.labels(label).observe(value)
        slow.labels(label).observe(value)
    assert sorted(generate_latest(ours).splitlines()) == sorted(generate_latest(theirs).splitlines())


def test_lines_over_the_budget_are_counted_and_failures_have_a_budget_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tenor.serving")
    written: list[dict[str, Any]] = []

    def write(text: str) -> None:
        written.extend(json.loads(line) for line in text.splitlines())

    async def run() -> None:
        lines = AccessLines(100, FixedClock(datetime(2026, 11, 20, tzinfo=UTC)), write)
        for number in range(50):
            lines.add("POST", "/predict", 200, 0.001, f"good {number}")
        for number in range(3):
            lines.add("POST", "/predict", 503, 0.001, f"bad {number}")
        assert written == []
        await asyncio.sleep(0.2)
        assert [line["correlation_id"] for line in written[:-1]] == [
            *(f"good {number}" for number in range(10)),
            *(f"bad {number}" for number in range(3)),
        ]
        assert (written[-1]["event"], written[-1]["succeeded"], written[-1]["failed"]) == (
            "requests without a line", 40, 0,
        )  # fmt: skip
        written.clear()
        lines.add("GET", "/models", 200, 0.0123456, "next")
        lines.flush()

    asyncio.run(run())
    assert written == [
        {
            "time": "2026-11-20T00:00:00.000+00:00", "level": "info", "logger": "tenor.serving", "event": "request",
            "correlation_id": "next", "method": "GET", "path": "/models", "status": 200, "milliseconds": 12.346,
        }
    ]  # fmt: skip


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP endpoint, and what it was sent."""
    sent: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_of_a_request_are_sent_where_an_endpoint_is_named(
    tmp_path: Path, registry: Registry, bundles: list[Bundle], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with collector() as (endpoint, sent):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with serve(tmp_path) as url, httpx.Client(base_url=url, trust_env=False) as client:
            with Inference(url) as inference:
                inference.wait_ready(30)
            headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "x-correlation-id": "run-42"}
            client.post("/v2/models/5m/infer", json=BODY, headers=headers).raise_for_status()
        # The service has ended: what it had to send is sent.
    resources = [resource for request in sent for resource in request.resource_spans]
    names = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert names["service.name"] == "tenor"
    spans = [
        span
        for one in resources
        for scope in one.scope_spans
        for span in scope.spans
        if span.trace_id.hex() == trace_id
    ]
    by_name = {span.name: span for span in spans}
    request, score = by_name[f"POST {INFER}"], by_name["score"]
    assert score.parent_span_id == request.span_id
    told = {one.key: one.value.string_value or one.value.int_value for span in spans for one in span.attributes}
    assert told["http.route"] == INFER
    assert told["http.response.status_code"] == 200
    assert told["tenor.correlation_id"] == "run-42"
    assert told["tenor.bundle"] == bundles[0].id
    assert told["tenor.rows"] == 2


def test_no_endpoint_means_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert tracing.provider() is None


def test_an_endpoint_without_the_exporter_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.TracingError, match=r"\[otel\]"):
        tracing.provider()
