"""Where nobody collects, spans still lead one trace through logs, audit and agents, as the W3C says of ``traceparent``."""

import re

import pytest
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.adapters.otel.setup import configure_telemetry
from engine.adapters.otel.uncollected import UncollectedTelemetry

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def telemetry():
    made = configure_telemetry("none", service_name="test")
    assert isinstance(made, UncollectedTelemetry)
    return made


def test_a_span_goes_on_in_the_trace_that_it_is_told_to_join(telemetry):
    with telemetry.span("plan", traceparent=GIVEN) as span:
        version, trace, own, flags = span.traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert own != SPAN
    assert re.fullmatch(r"[0-9a-f]{16}", own)


def test_the_flags_are_handed_on_as_they_came(telemetry):
    """A caller that does not sample is not made to."""
    with telemetry.span("plan", traceparent=f"00-{TRACE}-{SPAN}-00") as span, telemetry.span("below") as below:
        assert span.traceparent.endswith("-00")
        assert below.traceparent.endswith("-00")


def test_a_span_inside_another_is_of_its_trace_and_one_after_it_is_not(telemetry):
    with telemetry.span("plan") as outer:
        with telemetry.span("execute_tool") as inner:
            assert inner.traceparent[:36] == outer.traceparent[:36]
            assert inner.traceparent != outer.traceparent
        with telemetry.span("execute_tool") as second:
            assert second.traceparent[:36] == outer.traceparent[:36]
    with telemetry.span("plan") as later:
        assert later.traceparent[:36] != outer.traceparent[:36]


def test_a_span_is_left_by_an_exception_too(telemetry):
    with pytest.raises(ValueError, match="this"), telemetry.span("plan") as outer:
        raise ValueError("this")
    with telemetry.span("plan") as later:
        assert later.traceparent[:36] != outer.traceparent[:36]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"01-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-more",
        GIVEN,
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(telemetry, text):
    """As OpenTelemetry's own propagator reads it, so that both ways of telling agree on what is a trace."""
    joined = TraceContextTextMapPropagator().extract({"traceparent": text})
    with telemetry.span("outer"), telemetry.span("plan", traceparent=text) as span:
        assert (TRACE in span.traceparent) == bool(joined)
        with telemetry.span("outer") as current:
            assert current.traceparent[:36] == span.traceparent[:36]


def test_every_span_has_an_id_of_its_own_and_counting_costs_nothing(telemetry):
    telemetry.count("app.runs.finished", attributes={"status": "succeeded"})
    telemetry.record("gen_ai.execute_tool.duration", 0.5)
    seen = set()
    for _ in range(100):
        with telemetry.span("plan", attributes={"app.run.id": "r"}) as span:
            span.set("app.step.id", "s1")
            span.fail("step.failed")
            seen.add(span.traceparent)
    assert len(seen) == 100
