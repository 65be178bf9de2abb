"""Calling a capability: an agent over HTTP, an in-process tool, later a model or a queue."""

from __future__ import annotations

from typing import Protocol

from engine.domain.capability import Capability
from engine.domain.execute import ExecuteRequest, ExecuteResponse


class CapabilityInvoker(Protocol):
    """Carries one call out. Expected failures (timeouts, refusals, 5xx) are ``ExecuteFailed`` values, never exceptions:

    ``agent.unreachable`` (retryable), ``agent.timeout`` (retryable), ``agent.error`` (as the agent says or by status),
    ``agent.contract_violation`` (not retryable), ``agent.conflict`` (still in flight elsewhere when time was up; retryable).
    """

    async def invoke(
        self, capability: Capability, request: ExecuteRequest, *, traceparent: str | None = None
    ) -> ExecuteResponse:
        """Call with ``request.idempotency_key``; give up at ``request.deadline_at`` or the manifest's timeout."""
        ...
