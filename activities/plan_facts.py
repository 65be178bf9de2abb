"""What planning and repairing a plan share: reading a stored plan, its skeleton, and who made it, as records tell it."""

from __future__ import annotations

import asyncio
from typing import Any

from activities.payloads import load_json
from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.domain.policy import PlanPolicyDecision
from engine.domain.run import PayloadRef, PlanProvenance, Run
from engine.domain.skeleton import to_wire
from engine.domain.tenant import TenantConfig
from engine.evidence.canonical import canonical_sha256
from engine.plan import CheckedPlan, check_plan, skeleton_of
from engine.ports.deps import Deps
from planner_graph.planning import PreparedPlan, fallbacks_of


async def load_plan(run: Run, ref: PayloadRef, tenant: TenantConfig, deps: Deps) -> CheckedPlan:
    """A stored plan, checked again. Raises ``LivoaError("plan.no_longer_valid", status=422)``, or what the store raises."""
    document = await load_json(run, ref, deps)
    return await asyncio.to_thread(_checked, document, tenant, deps)


def _checked(document: Any, tenant: TenantConfig, deps: Deps) -> CheckedPlan:
    result = check_plan(document, tenant=tenant, catalog=deps.catalog)
    if result.plan is None:
        raise LivoaError("plan.no_longer_valid", "the stored plan no longer passes its checks", status=422)
    return result.plan


def planned(plan: CheckedPlan, tenant: TenantConfig) -> dict[str, Any]:
    """What the activity answers for a plan that is in force."""
    parallel, repairs = tenant.bounds.max_parallel_steps, tenant.planner.max_run_repairs
    return {"status": "planned", "skeleton": to_wire(skeleton_of(plan, max_parallel=parallel, max_repairs=repairs))}


def told_of(provenance: PlanProvenance) -> JsonObject:
    """Who made the plan, as events tell it, from what the run's record keeps of it."""
    told: JsonObject = {
        "source": provenance.source,
        "playbook": provenance.playbook,
        "model": provenance.model,
        "router": provenance.router,
    }
    return {name: value for name, value in told.items() if value is not None}


def origin_of(prepared: PreparedPlan) -> JsonObject:
    """Who made the plan, as events and the audit record tell it: names, codes and counts."""
    proposal = prepared.proposal
    told: JsonObject = {"source": proposal.source, "playbook": proposal.playbook, "model": proposal.model}
    if proposal.source != "caller":
        told["attempts"] = len(proposal.violations_by_attempt) + 1
        told["fallbacks"] = list(fallbacks_of(proposal.route)) or None
    if proposal.route is not None:
        told["router"] = proposal.route.router
    told["serial_edges"] = len(prepared.serial_edges) or None
    return {name: value for name, value in told.items() if value is not None}


def vetted(provenance: PlanProvenance, plan: CheckedPlan, decision: PlanPolicyDecision, deps: Deps) -> PlanProvenance:
    """Who made a plan, and under which policies and catalog it was vetted."""
    facts = {
        "plan_hash": plan.plan_hash,
        "policy_set": decision.policy_set_hash,
        "catalog": deps.catalog.version,
    }
    return provenance.model_copy(
        update={
            "policy_set_hash": decision.policy_set_hash,
            "catalog_version": deps.catalog.version,
            "vetting_id": canonical_sha256(facts),
        }
    )
