"""Calling a capability: an agent over HTTP, an in-process tool, later a model or a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from engine.domain.capability import Capability
from engine.domain.execute import ExecuteProgress, ExecuteRequest, ExecuteResponse

ProgressSink = Callable[[ExecuteProgress], Awaitable[None]]
"""Is told how far a call is. Must not raise, and must not take long: the call waits for it."""

LEAVE_RUNNING = "livoa.leave-running"
"""``task.cancel(LEAVE_RUNNING)`` ends a call without stopping its execution, for a later delivery to take up."""


class CapabilityInvoker(Protocol):
    """Carries one call out. Expected failures (timeouts, refusals, 5xx) are ``ExecuteFailed`` values, never exceptions:

    ``agent.unreachable`` (retryable), ``agent.timeout`` (retryable), ``agent.error`` (as the agent says or by status),
    ``agent.contract_violation`` (not retryable), ``agent.conflict`` (still in flight elsewhere when time was up; retryable),
    ``agent.execution_lost`` (accepted, and then nobody knew of it; retryable), ``grant.*`` and ``auth.*`` (as the agent says).
    """

    async def invoke(
        self,
        capability: Capability,
        request: ExecuteRequest,
        *,
        traceparent: str | None = None,
        progress: ProgressSink | None = None,
    ) -> ExecuteResponse:
        """Call with ``request.idempotency_key``; give up at ``request.deadline_at`` or the manifest's timeout.

        When the task is cancelled the execution is asked to stop, unless it is cancelled with ``LEAVE_RUNNING``.
        """
        ...
