"""Spans and metrics behind a port: edges and activities record, orchestrators never do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

Attribute = str | int | float | bool


class Span(Protocol):
    """One running span."""

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute. Ids, codes and counts only."""
        ...

    def fail(self, error_type: str) -> None:
        """Mark the span as failed with a stable code."""
        ...

    @property
    def traceparent(self) -> str | None:
        """W3C traceparent of this span, or None when nothing is recorded."""
        ...


class Telemetry(Protocol):
    """Where spans and counts go."""

    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        traceparent: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> AbstractContextManager[Span]:
        """Start a span as a child of ``traceparent`` (or of the current one). An escaping exception marks it failed by type."""
        ...

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Add to a counter."""
        ...

    def record(self, name: str, value: float, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Record a measurement (durations in seconds)."""
        ...
