"""How long to wait before the next attempt: exponential, capped, with jitter that a replay computes again.

Deliberately without randomness and without a clock; the scheduler turns the delay into a due time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MAX_RETRY_AFTER_S = 3_600.0
"""A callee may ask for patience, but not for more than this."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``max_attempts`` counts the first one. Delays in seconds; ``factor`` multiplies the delay after each attempt."""

    max_attempts: int
    backoff_s: float
    factor: float
    max_backoff_s: float


def delay_s(policy: RetryPolicy, key: str, attempt: int, retry_after_s: float | None = None) -> float:
    """Seconds between the failure of ``attempt`` (from 1) and the next one.

    Half of the exponential delay is fixed and half is jitter, taken from SHA-256 over ``key`` and the attempt, so that
    steps that failed together do not return together. ``retry_after_s`` is a lower bound the callee asked for.
    """
    try:
        raw_s = policy.backoff_s * policy.factor ** (attempt - 1)
    except OverflowError:
        raw_s = policy.max_backoff_s
    capped_s = min(max(raw_s, 0.0), policy.max_backoff_s)
    digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
    fraction = int.from_bytes(digest[:6], "big") / 2**48
    jittered_s = capped_s * (0.5 + 0.5 * fraction)
    return max(jittered_s, min(max(retry_after_s or 0.0, 0.0), MAX_RETRY_AFTER_S))
