"""The app as it is wired puts on record what the parts promise to: what is in force, and what the egress guard refuses."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

from engine.bootstrap.container import build_deps
from engine.bootstrap.settings import load_settings
from engine.domain.audit import AuditType
from engine.domain.execute import ExecuteRequest
from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest
from engine.domain.principal import Principal
from engine.domain.run import RunRequest
from engine.plan import check_plan
from engine.ports.deps import Deps
from tests.contract.agents.harness import raw_server
from tests.contract.agents.test_refusals_on_record import LINK_LOCAL, answer

SHIPPED = Path(__file__).resolve().parents[3] / "catalog"
PERSON = Principal(tenant_id="contoso", subject="tid:ana", kind="user", client_app="cli")
PLAN = {
    "schema_version": "1.0",
    "goal": "g",
    "steps": [{"id": "notes", "capability": "rag.search", "inputs": {"query": "budget"}}],
}


async def types(deps: Deps) -> list[AuditType]:
    return [record.type for record in await deps.audit.read("contoso", after_seq=0, limit=100)]


async def decided(deps: Deps) -> PlanPolicyDecision:
    tenant = await deps.tenants.get("contoso")
    assert tenant is not None
    checked = check_plan(PLAN, tenant=tenant, catalog=deps.catalog)
    assert checked.plan is not None, checked.violations
    return await deps.policy.decide_plan(
        PlanPolicyRequest(
            principal=PERSON,
            tenant=tenant,
            run_id="run-1",
            plan_hash=checked.plan.plan_hash,
            plan=checked.plan.plan,
            request=RunRequest(intent="do it"),
            capability_names=checked.plan.capability_names,
            estimated_cost_micro_usd=checked.plan.estimated_cost_micro_usd,
        )
    )


async def test_the_first_decision_of_a_process_says_what_is_in_force_and_the_next_process_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        deps = build_deps(load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)}))
        await decided(deps)
        assert await types(deps) == [AuditType.CONFIG_CHANGED, AuditType.POLICY_CHANGED]


async def test_a_redirect_of_an_agent_is_in_the_chain_of_the_run(tmp_path: Path) -> None:
    async with raw_server(answer({}, "307 Temporary", LINK_LOCAL)) as url:
        endpoints = json.dumps({"rag": url})
        env = {"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path), "LIVOA_AGENT_ENDPOINTS": endpoints}
        deps = build_deps(load_settings(env))
        capability = deps.catalog.capabilities["rag.search"].model_copy(update={"endpoint": "rag"})
        request = ExecuteRequest(
            tenant_id="contoso",
            run_id="run-1",
            step_id="notes",
            attempt=1,
            capability="rag.search",
            inputs={"query": "budget"},
            idempotency_key="run-1/notes",
            deadline_at=deps.clock.now() + timedelta(seconds=10),
        )
        await deps.invoker.invoke(capability, request)
    (record,) = await deps.audit.read("contoso", after_seq=0, limit=100, run_id="run-1")
    assert (record.type, record.body["code"]) == (AuditType.EGRESS_REFUSED, "egress.redirect")


async def test_a_file_of_guarantees_that_went_missing_stops_decisions_instead_of_widening_them(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    shutil.copytree(SHIPPED, catalog)
    (catalog / "policies" / "platform" / "bounds.cedar").unlink()
    env = {"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path / "data"), "LIVOA_CATALOG": str(catalog)}
    decision = await decided(build_deps(load_settings(env)))
    assert (decision.verdict, decision.code) == ("deny", "policy.unavailable")
