"""Set telemetry up once per process: exactly one owner of the exporter, chosen by setting.

``none`` (default) records nothing and needs no network; ``otlp`` follows the standard OTEL_EXPORTER_OTLP_* variables;
``azure_monitor`` needs APPLICATIONINSIGHTS_CONNECTION_STRING. The Functions worker must not configure Azure Monitor too:
leave PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY unset and PYTHON_ENABLE_OPENTELEMETRY=true.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from engine import VERSION
from engine.adapters.otel.logs import confine
from engine.adapters.otel.telemetry import OtelTelemetry
from engine.adapters.otel.uncollected import UncollectedTelemetry
from engine.ports.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

Exporter = Literal["none", "otlp", "azure_monitor"]
SCOPE = "livoa"


def configure_telemetry(exporter: Exporter, *, service_name: str) -> Telemetry:
    """Install providers for ``exporter`` and return the port. Call once per process.

    Without an exporter spans still have ids: trace ids correlate logs, audit and calls to agents.
    """
    if exporter == "none":
        return UncollectedTelemetry()
    from opentelemetry import metrics, trace

    if exporter == "otlp":
        _install_otlp(service_name)
    else:
        _install_azure_monitor(service_name)
    return OtelTelemetry(trace.get_tracer(SCOPE), metrics.get_meter(SCOPE))


def _resource(service_name: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return Resource.create({"service.name": service_name, "service.version": VERSION})


def _install_otlp(service_name: str) -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = _resource(service_name)
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))


def _install_azure_monitor(service_name: str) -> None:
    from azure.monitor.opentelemetry import configure_azure_monitor

    configure_azure_monitor(
        logger_name=SCOPE,
        resource=_resource(service_name),
        enable_live_metrics=False,
        instrumentation_options={name: {"enabled": False} for name in _INSTRUMENTATIONS},
    )
    for handler in logging.getLogger(SCOPE).handlers:
        handler.addFilter(confine)


_INSTRUMENTATIONS = ("azure_sdk", "django", "fastapi", "flask", "psycopg2", "requests", "urllib", "urllib3")
"""Off: they would put URLs with identifiers on spans, and double the spans of our own edges."""
