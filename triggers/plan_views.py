"""What callers see of a plan that is only looked at: findings, decision, route, and what it would take to run it."""

from __future__ import annotations

from pydantic import Field

from engine.domain.base import Frozen, JsonObject
from engine.domain.errors import Violation
from engine.domain.policy import Cure, PlanPolicyDecision, PolicyDecision, PolicyFinding, Verdict
from engine.ports.planner import NoPlan, Route
from planner_graph.planning import PreparedPlan, fallbacks_of, provenance_of
from triggers.views import PlannerView

_NOTHING_CHECKED: JsonObject = {
    "ok": False,
    "errors": (),
    "warnings": (),
    "steps": 0,
    "edges": 0,
    "critical_path": (),
    "critical_path_s": 0.0,
    "estimated_cost_micro_usd": 0,
    "plan_hash": None,
}


class RankedView(Frozen):
    """A capability or playbook, and how well it fits, from 0 to 1."""

    name: str
    score: float


class HopView(Frozen):
    """A router that was tried and handed on, and why."""

    router: str
    reason: str


class RouteView(Frozen):
    """What an intent is about, and who decided that. Out of scope: what could be asked for instead."""

    domain: str
    capabilities: tuple[RankedView, ...]
    in_scope: bool
    confidence: float
    router: str
    playbooks: tuple[RankedView, ...]
    fallbacks: tuple[HopView, ...]


class VerdictView(Frozen):
    """What policy says. ``findings`` name the policy, the place and the offending path through the graph."""

    verdict: Verdict
    code: str
    reasons: tuple[str, ...]
    policy_ids: tuple[str, ...]
    cures: tuple[Cure, ...]
    findings: tuple[PolicyFinding, ...]


class DecisionView(VerdictView):
    """The decision over a plan, with each step's own. ``approvals`` are the subjects that would ask for one."""

    policy_set_hash: str
    steps: dict[str, VerdictView]
    approvals: tuple[str, ...]


class RefusalView(Frozen):
    """Why there is no plan, and what could be asked for instead."""

    code: str
    message: str
    suggestions: tuple[str, ...]


class WaitView(Frozen):
    """A step that waits for another without using anything of it."""

    step_id: str | None
    message: str


class PlanPreview(Frozen):
    """A plan that is not run. ``ok``: it passed every check (``errors`` is empty); ``decision`` says whether it may run.

    ``plan`` in its normal form. ``refusal`` is there when no plan could be made. ``critical_path_s`` and
    ``estimated_cost_micro_usd`` are by the manifests, before anything runs.
    """

    ok: bool
    errors: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    steps: int
    edges: int
    critical_path: tuple[str, ...]
    critical_path_s: float = Field(description="seconds")
    estimated_cost_micro_usd: int
    plan_hash: str | None
    plan: JsonObject | None
    decision: DecisionView | None
    planner: PlannerView | None
    degraded_reason: str | None
    route: RouteView | None
    refusal: RefusalView | None
    violations_by_attempt: tuple[tuple[Violation, ...], ...]
    serial_edges: tuple[WaitView, ...]


def preview_of(prepared: PreparedPlan | NoPlan) -> PlanPreview:
    """The preview of what planning came to."""
    if isinstance(prepared, NoPlan):
        return _refused(prepared)
    proposal, result = prepared.proposal, prepared.result
    made = provenance_of(proposal)
    planner = PlannerView(
        source=made.source,
        playbook=made.playbook,
        model=made.model,
        router=made.router,
        fallbacks=fallbacks_of(proposal.route),
        attempts=made.attempts,
    )
    return PlanPreview.model_validate(
        {
            **result.to_json(),
            "plan": result.plan.document if result.plan is not None else None,
            "decision": decision_view_of(prepared.decision) if prepared.decision is not None else None,
            "planner": planner,
            "degraded_reason": proposal.degraded_reason,
            "route": route_view_of(proposal.route) if proposal.route is not None else None,
            "refusal": None,
            "violations_by_attempt": proposal.violations_by_attempt,
            "serial_edges": tuple(WaitView(step_id=one.step_id, message=one.message) for one in prepared.serial_edges),
        }
    )


def _refused(refusal: NoPlan) -> PlanPreview:
    return PlanPreview.model_validate(
        {
            **_NOTHING_CHECKED,
            "errors": refusal.violations,
            "plan": None,
            "decision": None,
            "planner": None,
            "degraded_reason": refusal.degraded_reason,
            "route": route_view_of(refusal.route) if refusal.route is not None else None,
            "refusal": RefusalView(code=refusal.code, message=refusal.message, suggestions=refusal.suggestions),
            "violations_by_attempt": (),
            "serial_edges": (),
        }
    )


def route_view_of(route: Route) -> RouteView:
    """A route on the wire."""
    return RouteView(
        domain=route.domain,
        capabilities=tuple(RankedView(name=one.name, score=one.score) for one in route.capabilities),
        in_scope=route.in_scope,
        confidence=route.confidence,
        router=route.router,
        playbooks=tuple(RankedView(name=one.name, score=one.score) for one in route.playbooks),
        fallbacks=tuple(HopView(router=hop.router, reason=hop.reason) for hop in route.fallbacks),
    )


def decision_view_of(decision: PolicyDecision) -> DecisionView:
    """A decision on the wire, with the subjects that would need an approval."""
    steps = decision.steps if isinstance(decision, PlanPolicyDecision) else {}
    asking = [step_id for step_id, own in steps.items() if _needs_approval(own)]
    return DecisionView(
        **_verdict(decision),
        policy_set_hash=decision.policy_set_hash,
        steps={step_id: VerdictView(**_verdict(own)) for step_id, own in steps.items()},
        approvals=(*(("plan",) if decision.verdict is Verdict.ESCALATE else ()), *asking),
    )


def _needs_approval(decision: PolicyDecision) -> bool:
    return decision.verdict is Verdict.ESCALATE or any(cure.kind == "approval" for cure in decision.cures)


def _verdict(decision: PolicyDecision) -> JsonObject:
    names = ("verdict", "code", "reasons", "policy_ids", "cures", "findings")
    return {name: getattr(decision, name) for name in names}
