"""How long steps may take and what they may cost, from manifests alone. Estimates order work and catch excess early.

They promise nothing: budgets are reserved and deadlines kept at run time.
"""

from __future__ import annotations

import math
import re

from engine.domain.capability import Capability
from engine.domain.plan import Step
from engine.plan.step_rules import StepFacts, is_repeatable

_P50 = re.compile(r"\bp50\s*[:=<≤]?\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h)\b")
_UNIT_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_TIMEOUT_SHARE = 20
"""Without a stated median a call is expected to take a twentieth of its timeout: timeouts guard the tail."""
_DEFAULT_ATTEMPTS = 3


def expected_seconds(step: Step, facts: StepFacts) -> float:
    """How long a step is expected to take, in seconds.

    A call: the ``p50`` its manifest's ``sla`` states (``p50 2s``, ``p50=300ms``), else a twentieth of the timeout. A map: that
    for each round of ``concurrency`` items. A wait of literal length: that length; other waits: nothing is known, 0.
    """
    if step.wait is not None:
        for_s = step.wait.for_s
        return float(for_s) if isinstance(for_s, int | float) and not isinstance(for_s, bool) else 0.0
    if facts.capability is None:
        return 0.0
    once = _call_seconds(facts.capability, step.timeout_s)
    return once * math.ceil(facts.items[0] / step.concurrency) if step.is_map else once


def _call_seconds(capability: Capability, timeout_s: float | None) -> float:
    stated = _P50.search(capability.sla)
    limit = min(capability.timeout_s, timeout_s or capability.timeout_s)
    return min(limit, float(stated[1]) * _UNIT_S[stated[2]]) if stated else limit / _TIMEOUT_SHARE


def cost_micro_usd(facts: StepFacts) -> int:
    """What one attempt of the step, or of all its items, costs at most by the manifest, in micro-USD."""
    return facts.capability.cost.per_call_micro_usd * facts.items[1] if facts.capability is not None else 0


def is_undone(step: Step | None, facts: StepFacts) -> bool:
    """Whether the step's effect is undone when the run comes to nothing: the plan says how, or the manifest demands it."""
    if step is None:
        return False
    demanded = facts.capability is not None and facts.capability.compensation_required
    return step.compensate_with is not None or demanded


def max_attempts(step: Step, capability: Capability | None) -> int:
    """How often a step may be tried, its fallback included: an effect that the manifest does not call repeatable once, whatever
    the plan says."""
    if capability is None or not is_repeatable(capability):
        return 1
    own = step.retry.max_attempts if step.retry is not None else _DEFAULT_ATTEMPTS
    return own + falls_back(step, capability)


def falls_back(step: Step, capability: Capability) -> bool:
    """True when the last of the step's attempts calls the fallback of its capability."""
    return step.on_failure == "fallback" and capability.fallback is not None
