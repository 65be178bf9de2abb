"""The ``Telemetry`` port over an OpenTelemetry tracer and meter.

Context is carried explicitly as a W3C traceparent: durable activities and thread pools lose the ambient one. Spans of
orchestrators do not exist by design: they would be emitted again on every replay. Every text on its way into a span or a metric
is masked here, the one door.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.domain.masking import mask
from engine.ports.telemetry import Attribute, Span

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class OtelSpan:
    """One running span."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, _clean(value))

    def fail(self, error_type: str) -> None:
        """Mark the span as failed; ``error.type`` is the stable code."""
        from opentelemetry.trace import Status, StatusCode

        error_type = mask(error_type)
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(Status(StatusCode.ERROR, error_type))

    @property
    def traceparent(self) -> str | None:
        """W3C traceparent of this span, or None when it is not valid."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class OtelTelemetry:
    """Spans and metrics through a tracer and a meter that somebody else configured. Where nobody collects them there is
    ``UncollectedTelemetry``."""

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._meter = meter
        self._counters: dict[str, Any] = {}
        self._histograms: dict[str, Any] = {}

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        traceparent: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Iterator[Span]:
        """A span as a child of ``traceparent``, or of the current span. Exceptions mark it by type; messages stay out."""
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            mask(name),
            context=_context(traceparent),
            kind=SpanKind[kind.upper()],
            attributes=_all_clean(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as raw:
            span = OtelSpan(raw)
            try:
                yield span
            except BaseException as err:
                span.fail(type(err).__name__)
                raise

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Add to a counter."""
        if name not in self._counters:
            self._counters[name] = self._meter.create_counter(name)
        self._counters[name].add(value, _all_clean(attributes))

    def record(self, name: str, value: float, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Record a measurement."""
        if name not in self._histograms:
            self._histograms[name] = self._meter.create_histogram(name)
        self._histograms[name].record(value, _all_clean(attributes))


def _clean(value: Attribute) -> Attribute:
    return mask(value) if isinstance(value, str) else value


def _all_clean(attributes: Mapping[str, Attribute] | None) -> dict[str, Attribute]:
    return {name: _clean(value) for name, value in (attributes or {}).items()}


def _context(traceparent: str | None) -> Any:
    if traceparent is None:
        return None
    return _propagator().extract({"traceparent": traceparent})


@cache
def _propagator() -> TraceContextTextMapPropagator:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
