"""The ``Telemetry`` port where nobody collects: ids that go on to logs, audit and agents, and nothing else.

The SDK would make a whole span of it, with times, a resource and empty lists, and hand it to nobody. What is kept is what the
W3C says about a ``traceparent`` (Trace Context, level 1): the trace goes on, every span has an id of its own, and the flags are
handed on as they came. A malformed one begins a new trace.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType

from engine.ports.telemetry import Attribute

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_SAMPLED = "01"


class UncollectedSpan:
    """A running span: its place in a trace."""

    __slots__ = ("_before", "_flags", "_span_id", "_trace_id")

    def __init__(self, trace_id: str, flags: str) -> None:
        self._trace_id, self._flags = trace_id, flags
        self._span_id = secrets.token_hex(8)
        self._before: Token[UncollectedSpan | None] | None = None

    def __enter__(self) -> UncollectedSpan:
        self._before = _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            _CURRENT.reset(self._before)

    def set(self, name: str, value: Attribute) -> None:
        """Nobody reads attributes."""

    def fail(self, error_type: str) -> None:
        """Nobody reads failures."""

    @property
    def traceparent(self) -> str:
        """See ``Span.traceparent``."""
        return f"00-{self._trace_id}-{self._span_id}-{self._flags}"

    def child(self) -> UncollectedSpan:
        """A span below this one."""
        return UncollectedSpan(self._trace_id, self._flags)


_CURRENT: ContextVar[UncollectedSpan | None] = ContextVar("livoa_span", default=None)


class UncollectedTelemetry:
    """Spans with ids; counts and measurements go nowhere."""

    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        traceparent: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> UncollectedSpan:
        """See ``Telemetry.span``."""
        if traceparent is not None:
            return _joined(traceparent) or _begun()
        current = _CURRENT.get()
        return current.child() if current is not None else _begun()

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Attribute] | None = None) -> None:
        """See ``Telemetry.count``."""

    def record(self, name: str, value: float, attributes: Mapping[str, Attribute] | None = None) -> None:
        """See ``Telemetry.record``."""


def _begun() -> UncollectedSpan:
    return UncollectedSpan(secrets.token_hex(16), _SAMPLED)


def _joined(traceparent: str) -> UncollectedSpan | None:
    """A span in the trace that it is told to join. Later versions may have more members, this one and ``ff`` may not."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4] is not None):
        return None
    return UncollectedSpan(found[2], found[3])
