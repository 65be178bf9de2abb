"""How much a plan may ask for: the platform's maxima, the tenant's bounds, and what the request itself allows."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.run import RunConstraints
from engine.domain.tenant import PLATFORM_MAX_ITEMS, PLATFORM_MAX_STEPS, TenantConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest of all limits. Seconds and micro-USD."""

    max_steps: int
    max_depth: int
    max_fan_out: int
    max_parallel: int
    wall_time_s: float
    cost_micro_usd: int


def limits_of(tenant: TenantConfig, constraints: RunConstraints | None) -> Limits:
    """The limits for one run; constraints only tighten."""
    bounds, asked = tenant.bounds, constraints or RunConstraints()
    steps = min(bounds.max_steps, PLATFORM_MAX_STEPS)
    cost = bounds.max_cost_micro_usd
    return Limits(
        max_steps=min(steps, asked.max_steps if asked.max_steps is not None else steps),
        max_depth=bounds.max_depth,
        max_fan_out=min(bounds.max_fan_out, PLATFORM_MAX_ITEMS),
        max_parallel=bounds.max_parallel_steps,
        wall_time_s=min(
            bounds.max_wall_time_s, asked.deadline_s if asked.deadline_s is not None else bounds.max_wall_time_s
        ),
        cost_micro_usd=min(cost, asked.max_cost_micro_usd if asked.max_cost_micro_usd is not None else cost),
    )
