"""Spans carry ids and codes, join the trace they are told to join, and never the text of an exception."""

import json
import logging

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine.adapters.otel.logs import JsonFormatter, confine
from engine.adapters.otel.telemetry import OtelTelemetry


@pytest.fixture
def recorded():
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    return OtelTelemetry(provider.get_tracer("test"), meter), exporter, reader


def test_a_span_is_the_child_of_the_traceparent_it_is_given(recorded):
    telemetry, exporter, _ = recorded
    with telemetry.span("plan") as outer:
        parent = outer.traceparent
    with telemetry.span("execute_tool", traceparent=parent, attributes={"app.step.id": "s1"}):
        pass
    plan, tool = exporter.get_finished_spans()
    assert tool.parent.span_id == plan.context.span_id
    assert tool.context.trace_id == plan.context.trace_id
    assert tool.attributes["app.step.id"] == "s1"


def test_an_escaping_exception_marks_the_span_by_type_and_keeps_its_text_out(recorded):
    telemetry, exporter, _ = recorded
    with pytest.raises(ValueError, match="secret"), telemetry.span("plan"):
        raise ValueError("secret")
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "ValueError"
    assert "secret" not in span.to_json()


def test_counts_and_durations_reach_the_reader(recorded):
    telemetry, _, reader = recorded
    telemetry.count("app.runs.finished", attributes={"status": "succeeded"})
    telemetry.count("app.runs.finished", attributes={"status": "succeeded"})
    telemetry.record("gen_ai.execute_tool.duration", 0.5)
    metrics = {
        m.name: m for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics
    }
    assert metrics["app.runs.finished"].data.data_points[0].value == 2
    assert metrics["gen_ai.execute_tool.duration"].data.data_points[0].sum == 0.5


def test_a_log_line_has_known_fields_only_and_no_exception_text():
    try:
        raise RuntimeError("token abc")
    except RuntimeError as err:
        record = logging.LogRecord(
            "livoa.steps", logging.ERROR, __file__, 1, "step failed", None, (type(err), err, err.__traceback__)
        )
    record.run_id, record.prompt = "run-1", "do not print me"
    line = JsonFormatter().format(record)
    parsed = json.loads(line)
    assert (parsed["run_id"], parsed["error_type"], parsed["message"]) == ("run-1", "RuntimeError", "step failed")
    assert "abc" not in line
    assert "print me" not in line


def test_exporters_that_take_whole_records_get_them_confined():
    """An exporter's handler writes the text of exceptions and every extra field, unless they are gone before."""
    taken = []
    handler = logging.Handler()
    handler.emit = taken.append
    handler.addFilter(confine)
    logger = logging.getLogger("livoa.test.confined")
    logger.addHandler(handler)
    try:
        try:
            raise RuntimeError("token abc")
        except RuntimeError:
            logger.exception("step failed", extra={"run_id": "run-1", "prompt": "do not export me"})
    finally:
        logger.removeHandler(handler)
    (record,) = taken
    assert (record.run_id, record.error_type, record.exc_info, record.exc_text) == ("run-1", "RuntimeError", None, None)
    assert not hasattr(record, "prompt")
    assert JsonFormatter().format(record) == JsonFormatter().format(record)
    assert json.loads(JsonFormatter().format(record))["error_type"] == "RuntimeError"


def test_no_text_gets_into_a_span_or_a_metric_unmasked(recorded):
    telemetry, exporter, reader = recorded
    said = {"app.step.id": "for ann@contoso.example", "app.step.attempt": 1}
    with telemetry.span("to ann@contoso.example", attributes=said) as span:
        span.set("app.step.status", "ann@contoso.example was told")
        span.fail("ann@contoso.example")
    telemetry.count("app.runs.finished", attributes={"status": "ann@contoso.example"})
    telemetry.record("gen_ai.execute_tool.duration", 0.5, attributes={"status": "ann@contoso.example"})
    (span,) = exporter.get_finished_spans()
    sent = span.to_json() + reader.get_metrics_data().to_json()
    assert "ann@" not in sent
    assert sent.count("[redacted: email]") == 7
    assert span.attributes["app.step.attempt"] == 1


def test_telemetry_says_which_service_and_version_it_is_of():
    from engine import VERSION
    from engine.adapters.otel.setup import _resource

    said = _resource("livoa").attributes
    assert (said["service.name"], said["service.version"]) == ("livoa", VERSION)
