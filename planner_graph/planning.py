"""Preparing a plan: propose (or take the caller's), check, vet. The one path to a plan, with or without a run behind it.

Running a plan and only asking what it would be go through the same code, so that what is shown is what would happen. Nothing
is stored here and nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.domain.policy import Cures, PlanPolicyDecision, PlanPolicyRequest, Verdict
from engine.domain.principal import Principal
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import CheckedPlan, CheckResult, check_plan, repair_violations
from engine.ports.budget import DailyLimits
from engine.ports.deps import Deps
from engine.ports.planner import NoPlan, PlanningTask, PlanProposal, Route, SuffixRepair
from planner_graph.serialisation import needless_edges
from planner_graph.state import Finding

_UNCURED = Cures()
_MAX_CIRCUITS = 200
"""Of how many capabilities a plan looks at the circuits; each may be a question to the durable engine."""
PLANNING_TIME = timedelta(seconds=240)
"""What one planning activity may take: less than the shortest function timeout, so that it ends by its own decision."""


@dataclass(frozen=True, slots=True)
class OwnPlan:
    """A plan the caller brought: no planner took part, so nothing is degraded."""

    document: JsonObject
    source: Literal["caller"] = "caller"
    playbook: str | None = None
    degraded_reason: str | None = None
    route: Route | None = None
    model: str | None = None
    seen_integrity: int = 3
    violations_by_attempt: tuple[tuple[Violation, ...], ...] = ()


Proposed = PlanProposal | OwnPlan


@dataclass(frozen=True, slots=True)
class PlanningCase:
    """Who wants what planned, for whom, and by when. With ``repair`` only the rest of a plan; ``written_by`` is then who wrote
    the plan so far, whose steps stay."""

    run_id: str
    principal: Principal
    tenant: TenantConfig
    request: RunRequest
    deadline_at: datetime
    traceparent: str | None = None
    plan_version: int = 1
    repair: SuffixRepair | None = None
    written_by: PlanProvenance | None = None


@dataclass(frozen=True, slots=True)
class PreparedPlan:
    """A proposal with what the checks and policy say. ``decision`` is None exactly when the checks found errors.

    ``serial_edges`` are found by counting: a step that waits for another and uses nothing of it.
    """

    proposal: Proposed
    result: CheckResult
    decision: PlanPolicyDecision | None
    serial_edges: tuple[Finding, ...] = ()


async def prepare_plan(case: PlanningCase, deps: Deps) -> PreparedPlan | NoPlan:
    """Propose, check and vet. Every proposal passes the same checks here once more, whoever reviewed it before.

    A planner's model calls are paid from the account of ``case.run_id``: open it first (``open_account``).
    """
    proposal = await _propose(case, deps)
    if isinstance(proposal, NoPlan):
        return proposal
    result = await _check(case, proposal.document, deps)
    if result.plan is None:
        return PreparedPlan(proposal, result, None)
    decision = await vet_plan(case, proposal, result.plan, deps)
    serial = await asyncio.to_thread(needless_edges, result.plan.document, deps.catalog.capabilities)
    return PreparedPlan(proposal, result, decision, serial)


async def open_account(case: PlanningCase, deps: Deps) -> None:
    """Open the budget account of ``case.run_id`` with the limits of the run and of its tenant's day. Again changes nothing."""
    budgets = case.tenant.budgets
    await deps.budgets.open(
        case.tenant.tenant_id,
        case.run_id,
        limit_micro_usd=cost_limit(case.tenant, case.request),
        limit_tokens=case.tenant.bounds.max_tokens,
        daily=DailyLimits(micro_usd=budgets.daily_cost_micro_usd, tokens=budgets.daily_tokens),
    )


async def preview_plan(case: PlanningCase, deps: Deps) -> PreparedPlan | NoPlan:
    """What planning would come to, without a run: nothing is stored but the evidence and the cost of model calls."""
    if case.request.plan is not None:
        return await prepare_plan(case, deps)
    async with _own_account(case, deps):
        return await prepare_plan(case, deps)


async def preview_route(case: PlanningCase, deps: Deps) -> Route:
    """Only what the intent is about."""
    async with _own_account(case, deps):
        return await deps.planner.route(planning_task(case, deps))


@asynccontextmanager
async def _own_account(case: PlanningCase, deps: Deps) -> AsyncIterator[None]:
    """An account for as long as nobody else uses it; what is left open at its end counts as spent."""
    await open_account(case, deps)
    try:
        yield
    finally:
        await deps.budgets.close(case.tenant.tenant_id, case.run_id, as_spent=True)


def cost_limit(tenant: TenantConfig, request: RunRequest) -> int:
    """What a run may cost in micro-USD: the tenant's bound, or less where the caller asks for less."""
    asked = request.constraints.max_cost_micro_usd
    limit = tenant.bounds.max_cost_micro_usd
    return limit if asked is None else min(limit, asked)


async def _propose(case: PlanningCase, deps: Deps) -> Proposed | NoPlan:
    if case.request.plan is not None and case.repair is None:
        return OwnPlan(case.request.plan)

    async def review(proposal: PlanProposal) -> tuple[Violation, ...]:
        """What the checks and policy have against a proposal, before it is accepted."""
        result = await _check(case, proposal.document, deps)
        if result.plan is None:
            return result.violations
        return objections(await vet_plan(case, proposal, result.plan, deps))

    if deps.models.for_tenant(case.tenant, "planner"):
        # What the planner tells a model about open circuits is what this process has seen; let it look first.
        known = deps.catalog.capabilities
        enabled = [known[name] for name in case.tenant.enabled_capabilities[:_MAX_CIRCUITS] if name in known]
        await deps.circuits.unavailable(case.tenant, enabled)
    return await deps.planner.propose(planning_task(case, deps), review)


def planning_task(case: PlanningCase, deps: Deps) -> PlanningTask:
    """The job as planners know it."""
    return PlanningTask(
        run_id=case.run_id,
        request=case.request,
        tenant=case.tenant,
        deadline_at=min(case.deadline_at, deps.clock.now() + PLANNING_TIME),
        actor=case.principal.subject,
        plan_version=case.plan_version,
        repair=case.repair,
        traceparent=case.traceparent,
    )


async def _check(case: PlanningCase, document: JsonObject, deps: Deps) -> CheckResult:
    # In a thread: a large plan takes seconds, and other activities share the loop.
    result = await asyncio.to_thread(
        check_plan, document, tenant=case.tenant, catalog=deps.catalog, constraints=case.request.constraints
    )
    if case.repair is None or result.plan is None:
        return result
    repair = case.repair
    changed = repair_violations(repair.plan, result.plan.document, repair.failed_step_id, repair.taken)
    return replace(result, plan=None, violations=changed) if changed else result


async def vet_plan(case: PlanningCase, proposal: Proposed, plan: CheckedPlan, deps: Deps) -> PlanPolicyDecision:
    """The early policy decision over a checked plan."""
    return await decide_plan(case, provenance_in(case, proposal), plan, deps)


def provenance_in(case: PlanningCase, proposal: Proposed) -> PlanProvenance:
    """Who wrote the plan, before it is vetted. A repaired one is trusted no more than either of its parts."""
    made, before = provenance_of(proposal), case.written_by
    if before is None:
        return made
    return made.model_copy(update={"seen_integrity": min(made.seen_integrity, before.seen_integrity)})


async def decide_plan(
    case: PlanningCase, provenance: PlanProvenance, plan: CheckedPlan, deps: Deps, cures: Cures = _UNCURED
) -> PlanPolicyDecision:
    """What policy says about a checked plan, as far as it is cured."""
    return await deps.policy.decide_plan(
        PlanPolicyRequest(
            principal=case.principal,
            tenant=case.tenant,
            run_id=case.run_id,
            plan_hash=plan.plan_hash,
            capability_names=plan.capability_names,
            estimated_cost_micro_usd=plan.estimated_cost_micro_usd,
            plan=plan.plan,
            request=case.request,
            provenance=provenance,
            cures=cures,
        )
    )


def objections(decision: PlanPolicyDecision) -> tuple[Violation, ...]:
    """What a planner can repair: the findings of a refusal, else its reasons. What needs a cure is not its business."""
    if decision.verdict is not Verdict.DENY:
        return ()
    if not decision.findings:
        return tuple(Violation(code=decision.code, pointer="", message=reason) for reason in decision.reasons) or (
            Violation(code=decision.code or "policy.denied", pointer="", message="policy denies this plan"),
        )
    return tuple(
        Violation(
            code=decision.code or "policy.denied", pointer=found.pointer, message=_with_path(found.message, found.path)
        )
        for found in decision.findings
    )


def _with_path(message: str, path: tuple[str, ...]) -> str:
    return f"{message} (by way of {' → '.join(path)})" if path else message


def provenance_of(proposal: Proposed) -> PlanProvenance:
    """Who wrote the plan, before it is vetted."""
    return PlanProvenance(
        source=proposal.source,
        playbook=proposal.playbook,
        seen_integrity=proposal.seen_integrity,
        model=proposal.model,
        router=proposal.route.router if proposal.route is not None else None,
        fallbacks=fallbacks_of(proposal.route),
        attempts=len(proposal.violations_by_attempt) + 1,
    )


def fallbacks_of(route: Route | None) -> tuple[str, ...]:
    """The routers that handed on, each with its reason."""
    return tuple(f"{hop.router}: {hop.reason}" for hop in route.fallbacks) if route is not None else ()
