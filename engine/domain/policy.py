"""What the decision point is asked and what it answers. The verdict vocabulary is allow, deny, escalate, transform."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject
from engine.domain.capability import Capability
from engine.domain.plan import Plan
from engine.domain.principal import Principal
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig


class Verdict(StrEnum):
    """``deferred`` occurs at plan time only: arguments are not bound yet."""

    ALLOW = "allow"
    DENY = "deny"
    ESCALATE = "escalate"
    TRANSFORM = "transform"
    DEFERRED = "deferred"


class Cure(Frozen):
    """What turns an escalate or transform into an allow: ``approval`` (detail ``four-eyes``), ``redaction`` of whole values, or
    ``masking`` of personal data found in texts (detail of both: JSON Pointers into the inputs, separated by spaces)."""

    kind: str
    detail: str = ""


class PolicyFinding(Frozen):
    """One policy that stood in the way, for one step or for the plan as a whole (``step_id`` None).

    ``path`` is the offending way through the graph, source first, in words such as ``steps.web#/hits/0/mail`` or
    ``run#/context/documents``; ``pointer`` is the place in the plan or in the bound inputs. ``curable`` findings name
    their ``cure``; a ``hard`` one ends it.
    """

    policy_id: str
    severity: Literal["hard", "curable"]
    message: str
    step_id: str | None = None
    pointer: str = ""
    path: tuple[str, ...] = ()
    cure: Cure | None = None


class PolicyDecision(Frozen):
    """One decision with everything needed to explain it: policy ids, the hash of the policy set, reasons in words.

    ``schema_hash`` names the vocabulary the policies were asked in, ``engine_version`` what evaluated them, ``facts_hash`` what
    they were told; all empty when the built-in rules decided before any policy was asked.
    """

    verdict: Verdict
    policy_ids: tuple[str, ...] = ()
    policy_set_hash: str = ""
    schema_hash: str = ""
    engine_version: str = ""
    facts_hash: str = ""
    code: str = ""
    reasons: tuple[str, ...] = ()
    cures: tuple[Cure, ...] = ()
    findings: tuple[PolicyFinding, ...] = ()

    @property
    def allows(self) -> bool:
        """True only for a clean allow; everything else must not run."""
        return self.verdict is Verdict.ALLOW


class PlanPolicyDecision(PolicyDecision):
    """The early answer over a whole plan.

    ``verdict`` is about running the plan at all: ``deny`` when the plan or any of its steps can be refused already,
    ``escalate`` when the plan itself needs an approval (subject ``plan``), ``allow`` otherwise. ``steps`` has each step's own
    early verdict by id: ``escalate`` or ``transform`` there means that the step will ask for its cure when it is dispatched,
    ``deferred`` that its arguments decide.
    """

    steps: dict[str, PolicyDecision] = Field(default_factory=dict)


REDACTED = "[redacted]"
"""What stands in the place of a value that was redacted. A cure that claims a redaction counts only where this stands."""


class Cures(Frozen):
    """What has been done already to cure this very request: nothing, unless said here.

    ``approved`` is true for a live approval bound to (plan hash, subject, resolved arguments, policy set);
    ``approver_differs`` when its giver is a person other than the run's requester. ``redacted`` are JSON Pointers into the
    inputs whose values were replaced before this question was asked, ``masked`` those of texts in which pieces were.
    """

    approved: bool = False
    approver_differs: bool = False
    redacted: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


class StepPolicyRequest(Frozen):
    """May this principal run this step with these bound inputs? ``capability`` is None when the catalog has none.

    ``plan`` is the checked plan the step belongs to, ``request`` what the user asked for (its words ground literals),
    ``provenance`` who wrote the plan and what they saw. ``purpose`` other than ``step``: the call of a fallback, or of the
    compensation of the step named.
    """

    principal: Principal
    tenant: TenantConfig
    run_id: str
    plan_hash: str
    step_id: str
    item: int | None = None
    capability_name: str
    capability: Capability | None
    inputs: JsonObject
    plan: Plan | None = None
    request: RunRequest | None = None
    provenance: PlanProvenance | None = None
    cures: Cures = Cures()
    purpose: Literal["step", "fallback", "compensation"] = "step"


class PlanPolicyRequest(Frozen):
    """May this principal run this plan at all? One entry per step in ``capability_names``; inputs are not bound yet."""

    principal: Principal
    tenant: TenantConfig
    run_id: str
    plan_hash: str
    capability_names: tuple[str, ...] = Field(default=())
    estimated_cost_micro_usd: int = 0
    plan: Plan | None = None
    request: RunRequest | None = None
    provenance: PlanProvenance | None = None
    cures: Cures = Cures()
