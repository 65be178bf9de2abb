"""The built-in rules: a step runs only when its tenant is active, the capability is enabled for it and the inputs are valid.

Everything else is denied, errors included. These rules are what the platform guarantees before any policy language is asked;
they are total, free of I/O, and their ids and hash are stable so that audit records can name them.
"""

from __future__ import annotations

import hashlib

from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest, Verdict
from engine.plan import validate_inputs

RULE_TENANT = "builtin.tenant_active"
RULE_ISOLATION = "builtin.tenant_isolation"
RULE_ENABLED = "builtin.capability_enabled"
RULE_INPUTS = "builtin.inputs_valid"
RULE_COST = "builtin.cost_within_bounds"

_RULES = (RULE_TENANT, RULE_ISOLATION, RULE_ENABLED, RULE_INPUTS, RULE_COST)
POLICY_SET_HASH = hashlib.sha256("\n".join(("builtin 1", *_RULES)).encode()).hexdigest()
"""Names this set of rules in decisions and audit records. A change of meaning raises the number in it."""

_MAX_REASONS = 5


_ALLOW = PolicyDecision(verdict=Verdict.ALLOW, policy_ids=(RULE_ENABLED,), policy_set_hash=POLICY_SET_HASH)


def _deny(rule: str, code: str, *reasons: str) -> PolicyDecision:
    return PolicyDecision(
        verdict=Verdict.DENY,
        policy_ids=(rule,),
        policy_set_hash=POLICY_SET_HASH,
        code=code,
        reasons=reasons[:_MAX_REASONS],
    )


class BuiltinPolicyEngine:
    """Implements the ``PolicyEngine`` port with the built-in rules."""

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """Deny a plan of a suspended or foreign tenant, with a capability that is not enabled, or over the tenant's cost."""
        return PlanPolicyDecision(**dict(self._decide_plan(request)))

    def _decide_plan(self, request: PlanPolicyRequest) -> PolicyDecision:
        refusal = _refuse_tenant(request)
        if refusal is not None:
            return refusal
        missing = sorted({name for name in request.capability_names if not request.tenant.enables(name)})
        if missing:
            return _deny(
                RULE_ENABLED,
                "policy.capability_not_enabled",
                *(f"{name} is not enabled for tenant {request.tenant.tenant_id}" for name in missing),
            )
        limit = request.tenant.bounds.max_cost_micro_usd
        if request.estimated_cost_micro_usd > limit:
            return _deny(
                RULE_COST,
                "policy.cost_over_bounds",
                f"the plan is estimated at {request.estimated_cost_micro_usd} micro-USD; the tenant allows {limit}",
            )
        return _ALLOW

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """Deny a step unless its capability is known, enabled for the tenant, and the bound inputs fit its schema."""
        refusal = _refuse_tenant(request)
        if refusal is not None:
            return refusal
        name = request.capability_name
        if request.capability is None or request.capability.name != name:
            return _deny(RULE_ENABLED, "policy.capability_unknown", f"{name} is not in the catalog")
        if not request.tenant.enables(name):
            return _deny(
                RULE_ENABLED,
                "policy.capability_not_enabled",
                f"{name} is not enabled for tenant {request.tenant.tenant_id}",
            )
        violations = validate_inputs(request.capability, request.inputs)
        if violations:
            return _deny(RULE_INPUTS, "policy.inputs_invalid", *(f"{v.pointer}: {v.code}" for v in violations))
        return _ALLOW


def _refuse_tenant(request: PlanPolicyRequest | StepPolicyRequest) -> PolicyDecision | None:
    if request.principal.tenant_id != request.tenant.tenant_id:
        return _deny(RULE_ISOLATION, "policy.tenant_mismatch", "the principal belongs to another tenant")
    if request.tenant.status != "active":
        return _deny(RULE_TENANT, "policy.tenant_suspended", f"tenant {request.tenant.tenant_id} is suspended")
    return None
