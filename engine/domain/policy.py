"""What the decision point is asked and what it answers. The verdict vocabulary is allow, deny, escalate, transform."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from engine.domain.base import Frozen, JsonObject
from engine.domain.capability import Capability
from engine.domain.principal import Principal
from engine.domain.tenant import TenantConfig


class Verdict(StrEnum):
    """``deferred`` occurs at plan time only: arguments are not bound yet."""

    ALLOW = "allow"
    DENY = "deny"
    ESCALATE = "escalate"
    TRANSFORM = "transform"
    DEFERRED = "deferred"


class Cure(Frozen):
    """What turns an escalate or transform into an allow."""

    kind: str
    detail: str = ""


class PolicyDecision(Frozen):
    """One decision with everything needed to explain it: policy ids, the hash of the policy set, reasons in words."""

    verdict: Verdict
    policy_ids: tuple[str, ...] = ()
    policy_set_hash: str = ""
    code: str = ""
    reasons: tuple[str, ...] = ()
    cures: tuple[Cure, ...] = ()

    @property
    def allows(self) -> bool:
        """True only for a clean allow; everything else must not run."""
        return self.verdict is Verdict.ALLOW


class StepPolicyRequest(Frozen):
    """May this principal run this step with these bound inputs? ``capability`` is None when the catalog has none."""

    principal: Principal
    tenant: TenantConfig
    run_id: str
    plan_hash: str
    step_id: str
    item: int | None = None
    capability_name: str
    capability: Capability | None
    inputs: JsonObject


class PlanPolicyRequest(Frozen):
    """May this principal run this plan at all? One entry per step in ``capability_names``; inputs are not bound yet."""

    principal: Principal
    tenant: TenantConfig
    run_id: str
    plan_hash: str
    capability_names: tuple[str, ...] = Field(default=())
    estimated_cost_micro_usd: int = 0
