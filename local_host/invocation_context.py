"""What a function may learn about its own invocation: the `context` parameter and W3C trace context.

Deliberately creates no spans; it only carries the caller's trace on, so that the app's own telemetry can join it.
"""

from __future__ import annotations

import random
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import azure.functions as func
from azure.functions._abc import RpcException
from azure.functions._abc import TraceContext as SdkTraceContext

_TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C trace context of one invocation (header values)."""

    traceparent: str
    tracestate: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Trace:
        """A child of the caller's trace, or a new one when there is none or it is malformed."""
        match = _TRACEPARENT.match(headers.get("traceparent", ""))
        if match is None or not int(match.group(1), 16) or not int(match.group(2), 16):
            return cls.new()
        return cls(f"00-{match.group(1)}-{_hex(64)}-{match.group(3)}", headers.get("tracestate", ""))

    @classmethod
    def new(cls) -> Trace:
        """A new, unsampled trace."""
        return cls(f"00-{_hex(128)}-{_hex(64)}-00")


def _hex(bits: int) -> str:
    # Ids that tell traces apart and keep nothing out: no reason to ask the system for each invocation. Never all zeros.
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


class _TraceContext(SdkTraceContext):
    """The SDK's abstract class plus the capitalised aliases old code reads."""

    def __init__(self, trace: Trace, attributes: dict[str, str]) -> None:
        self._trace, self._attributes = trace, attributes

    @property
    def trace_parent(self) -> str:
        return self._trace.traceparent

    @property
    def trace_state(self) -> str:
        return self._trace.tracestate

    @property
    def attributes(self) -> dict[str, str]:
        return self._attributes

    Traceparent = trace_parent
    Tracestate = trace_state
    Attributes = attributes


class _RetryContext:
    """No retry policy is applied by this host, so every invocation is the first."""

    retry_count = 0
    max_retry_count = 0
    exception: RpcException | None = None


class InvocationContext(func.Context):
    """The object passed to a parameter called `context`."""

    def __init__(self, function_name: str, function_directory: str, trace: Trace) -> None:
        self._invocation_id = str(uuid.uuid4())
        self._function_name = function_name
        self._function_directory = function_directory
        self._thread_local = threading.local()
        self._thread_local.invocation_id = self._invocation_id
        self._trace = _TraceContext(trace, {"FunctionName": function_name, "InvocationId": self._invocation_id})

    @property
    def invocation_id(self) -> str:
        return self._invocation_id

    @property
    def function_name(self) -> str:
        return self._function_name

    @property
    def function_directory(self) -> str:
        return self._function_directory

    @property
    def thread_local_storage(self) -> threading.local:  # type: ignore[override]  # the SDK annotates the class, meaning an instance
        return self._thread_local

    @property
    def trace_context(self) -> SdkTraceContext:
        return self._trace

    @property
    def retry_context(self) -> _RetryContext:  # type: ignore[override]  # duck-typed: the SDK's class is abstract
        return _RetryContext()
