"""What to do after a failed request, and what it tells about the deployment. Decisions only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.limits.breaker import BreakerRules, CallOutcome
from engine.ports.models import ModelFailure, ModelReply, ModelResult
from engine.scheduler.backoff import RetryPolicy, delay_s

Move = Literal["stop", "next"]
"""Give up the question (no other deployment would answer otherwise), or hand it to the next deployment."""

_STOPPING = frozenset({"model.content_filtered", "model.refused", "model.truncated", "model.invalid_output"})
"""The model did answer: another deployment is not asked to get around it."""
FINAL = _STOPPING | {"model.over_budget"}
"""Codes of results that asking again would only repeat, and pay for."""
REPAIRABLE = frozenset({"model.truncated", "model.invalid_output"})
_ILL = frozenset({"model.timeout", "model.unavailable", "model.rate_limited"})
_NEUTRAL = frozenset({"model.unauthorised", "model.not_configured", "model.context_too_long"})


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """Bounds of model calls. Times in seconds.

    ``router_time_s`` bounds all attempts of one routing question, so that planning has the rest of the time. ``patience_s`` is
    the longest pause before a retry while another deployment is left to ask. A time-out after less than ``fair_timeout_s`` says
    more about the caller's deadline than about the deployment.
    """

    attempt_timeout_s: float = 90.0
    router_time_s: float = 45.0
    min_call_s: float = 1.0
    patience_s: float = 10.0
    fair_timeout_s: float = 10.0
    slow_after_s: float = 60.0
    retry: RetryPolicy = field(default=RetryPolicy(max_attempts=3, backoff_s=0.5, factor=2.0, max_backoff_s=8.0))
    max_requests: int = 40
    max_repair_chars: int = 8_000
    stream_bytes_per_token: int = 6
    breaker: BreakerRules = field(default=BreakerRules(probe_ttl_ms=180_000))

    def timeout_s(self, left_s: float, *, is_last: bool) -> float:
        """How long one attempt may take: with another deployment at hand at most half of the time that is left."""
        return min(self.attempt_timeout_s, left_s if is_last else left_s / 2)


def move_after(
    failure: ModelFailure, attempt: int, *, key: str, left_s: float, is_last: bool, rules: GatewayRules
) -> Move | float:
    """The next move after ``attempt`` (from 1) at one deployment; a number is the pause in seconds before trying it again.

    A pause the server asked for is kept when it fits before the deadline; with another deployment at hand nobody waits long,
    and nobody asks a second time one that let the time run out.
    """
    may_again = is_last or failure.code != "model.timeout"
    if failure.retryable and may_again and attempt < rules.retry.max_attempts:
        pause_s = delay_s(rules.retry, key, attempt, failure.retry_after_s)
        fits = pause_s + rules.min_call_s <= left_s
        if fits and (is_last or pause_s <= rules.patience_s):
            return pause_s
    return "stop" if failure.code in _STOPPING else "next"


def outcome_of(result: ModelResult, timeout_s: float, rules: GatewayRules) -> CallOutcome:
    """What a result tells the deployment's breaker. That the model refuses or writes nonsense is no illness of its server."""
    if isinstance(result, ModelFailure):
        if result.code in _NEUTRAL or (result.code == "model.unavailable" and not result.retryable):
            # The latter is a request that the server refuses to take: one tenant's must not close the door to all.
            return "neutral"
        if result.code == "model.timeout" and timeout_s < rules.fair_timeout_s:
            return "neutral"
        if result.code in _ILL:
            return "failure"
    return "slow" if result.latency_s > rules.slow_after_s else "success"


def failure_in(reply: ModelReply) -> ModelFailure | None:
    """What a reply's finish reason says against it, whoever the adapter is."""
    if reply.finish_reason == "length":
        return ModelFailure(
            "model.truncated", "the reply reached the token limit", usage=reply.usage, latency_s=reply.latency_s
        )
    if reply.finish_reason == "content_filter":
        return ModelFailure(
            "model.content_filtered", "the content filter cut the reply", usage=reply.usage, latency_s=reply.latency_s
        )
    return None
