"""OpenTelemetry traces, where the environment names an endpoint: FastAPI makes the spans, this sends them."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NAME = "tenor"


class TracingError(RuntimeError):
    """Traces are asked for and cannot be sent; the message says what to install."""


def provider() -> "TracerProvider | None":
    """Where spans go, None where no endpoint is set. OTEL_* variables say the rest (headers, sampling, service name).

    Raises TracingError where the exporter is not installed.
    """
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        why = f"{named} is set, and {error.name} is not installed: `uv pip install -e '.[otel]'`, or unset it"
        raise TracingError(why) from error
    named_there = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    made = TracerProvider(resource=Resource.create({} if named_there else {SERVICE_NAME: NAME}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
