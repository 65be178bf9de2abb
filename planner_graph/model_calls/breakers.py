"""One circuit breaker per deployment and process: the pure reducer with a name, a lock-free dict and a count of openings.

Per process on purpose: every process learns within five failures what the others know, and no call waits for a shared state.
"""

from __future__ import annotations

import logging

from engine.domain.telemetry_names import METRIC_BREAKER_OPENED, MODEL_DEPLOYMENT
from engine.limits.breaker import Breaker, BreakerResult, BreakerRules, CallOutcome, Permit, Report, apply_breaker
from engine.ports.clock import Clock
from engine.ports.telemetry import Telemetry

_LOG = logging.getLogger("livoa.models")


class Breakers:
    """The circuits of all deployments. One event loop at a time: nothing here awaits, so nothing interleaves."""

    def __init__(self, clock: Clock, telemetry: Telemetry, rules: BreakerRules) -> None:
        self._clock, self._telemetry, self._rules = clock, telemetry, rules
        self._states: dict[str, Breaker] = {}

    def permit(self, deployment: str, lease_id: str) -> BreakerResult:
        """May ``deployment`` be called now?"""
        state, result = self._apply(deployment, Permit(lease_id))
        self._states[deployment] = state
        return result

    def report(self, deployment: str, lease_id: str, generation: int, outcome: CallOutcome) -> None:
        """How a permitted call ended. Every permit is reported, or its probe's place stays taken until it expires."""
        state, result = self._apply(deployment, Report(lease_id, generation, outcome))
        self._states[deployment] = state
        if result.opened:
            self._telemetry.count(METRIC_BREAKER_OPENED, attributes={MODEL_DEPLOYMENT: deployment})
            _LOG.warning(
                "the circuit of model deployment %s is open for %.1f s", deployment, result.retry_after_ms / 1_000
            )

    def _apply(self, deployment: str, op: Permit | Report) -> tuple[Breaker, BreakerResult]:
        now_ms = int(self._clock.now().timestamp() * 1_000)
        state = self._states.get(deployment, Breaker())
        return apply_breaker(state, op, now_ms, name=deployment, rules=self._rules)
