"""A policy engine that follows a script: what it says depends on the cures it is told of, as with the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.domain.policy import (
    Cure,
    PlanPolicyDecision,
    PlanPolicyRequest,
    PolicyDecision,
    PolicyFinding,
    StepPolicyRequest,
    Verdict,
)

ALLOW = PolicyDecision(verdict=Verdict.ALLOW, policy_ids=("t/test/permit",))
APPROVAL = Cure(kind="approval", detail="four-eyes")

Rule = Callable[[StepPolicyRequest], PolicyDecision]


def deny(code: str = "policy.no") -> PolicyDecision:
    """A hard no."""
    return PolicyDecision(verdict=Verdict.DENY, policy_ids=("t/test/forbid",), code=code, reasons=("it is forbidden",))


def escalate(*, reason: str = "it needs a second person", step_id: str | None = None) -> PolicyDecision:
    """A second person would make it an allow."""
    finding = PolicyFinding(
        policy_id="t/test/four-eyes",
        severity="curable",
        message=reason,
        step_id=step_id,
        path=("steps.web#/hits/0",),
        cure=APPROVAL,
    )
    return PolicyDecision(
        verdict=Verdict.ESCALATE,
        policy_ids=("t/test/four-eyes",),
        code="policy.escalate",
        reasons=(reason,),
        cures=(APPROVAL,),
        findings=(finding,),
    )


def transform(*pointers: str, verdict: Verdict = Verdict.TRANSFORM, more: tuple[Cure, ...] = ()) -> PolicyDecision:
    """Taking these values out would make it an allow."""
    cure = Cure(kind="redaction", detail=" ".join(pointers))
    return PolicyDecision(
        verdict=verdict,
        policy_ids=("t/test/personal",),
        code="policy.transform",
        reasons=("it holds personal data",),
        cures=(cure, *more),
    )


def four_eyes(request: StepPolicyRequest) -> PolicyDecision:
    """Escalate until somebody other than the requester has approved."""
    return ALLOW if request.cures.approved and request.cures.approver_differs else escalate(step_id=request.step_id)


def without(*pointers: str) -> Rule:
    """Transform until these are taken out."""
    return lambda request: ALLOW if set(pointers) <= set(request.cures.redacted) else transform(*pointers)


def allow(request: StepPolicyRequest) -> PolicyDecision:
    """Always yes."""
    return ALLOW


@dataclass
class ScriptedPolicy:
    """``steps`` has a rule per step id (others are allowed); ``plan`` decides on plans. ``version`` names the policy set."""

    steps: dict[str, Rule] = field(default_factory=dict)
    plan: Callable[[PlanPolicyRequest], PolicyDecision] = lambda request: ALLOW
    version: str = "set-1"
    asked: list[StepPolicyRequest] = field(default_factory=list)

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """See the port."""
        decision = self.plan(request)
        return PlanPolicyDecision(**(dict(decision) | {"policy_set_hash": self.version}))

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """See the port."""
        self.asked.append(request)
        decision = self.steps.get(request.step_id, allow)(request)
        return decision.model_copy(update={"policy_set_hash": self.version})
