"""How long the decision point takes: a plan of 50 steps, 200 policies, 200 capabilities, on one core.

``python -m bench.policy`` prints JSON in milliseconds: facts and decisions of the plan together (wall clock, and processor time,
which says more on a busy machine), facts alone, one step with bound inputs, and what loading costs. Policies and capabilities are
generated from the shipped ones: the platform's policies as they are, the rest in the shapes tenants write. No two steps ask the
same question. Every decision is asserted, so that a wrong answer is no result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.adapters.files.catalog import FilesCatalog
from engine.adapters.memory import MemoryCatalog
from engine.domain.capability import Capability
from engine.domain.policy import PlanPolicyRequest, StepPolicyRequest, Verdict
from engine.domain.principal import Principal, Role
from engine.domain.run import PlanProvenance, RunContext, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from engine.ports.policy import PolicyText, PolicyTexts
from policy.engine import GovernedPolicyEngine
from policy.flow import facts as flow_facts
from policy.flow import plan_facts
from policy.library import PolicyLibrary

CATALOG = Path(__file__).resolve().parent.parent / "catalog"
PRINCIPAL = Principal(
    tenant_id="contoso", subject="t:bench", kind="user", client_app="bench", roles=frozenset({Role.RUNS_SUBMIT})
)


class _Texts:
    def __init__(self, texts: PolicyTexts) -> None:
        self._texts = texts

    async def texts(self, tenant_id: str) -> PolicyTexts:
        return self._texts


def capabilities(count: int) -> list[Capability]:
    """The shipped capabilities and as many variants of them as are missing."""
    shipped = list(FilesCatalog(CATALOG).capabilities.values())
    made = list(shipped)
    while len(made) < count:
        base = shipped[len(made) % len(shipped)]
        made.append(base.model_copy(update={"name": f"{base.name}_v{len(made)}"}))
    return made


def policies(count: int, known: list[Capability]) -> PolicyTexts:
    """The platform's policies, and a tenant's of the usual shapes up to ``count`` in all."""
    platform = _folder("platform")
    own = [
        '@id("t/contoso/all") permit (principal in Livoa::Tenant::"contoso", action, resource) '
        'when { principal in Livoa::Role::"Runs.Submit" };'
    ]
    have = sum(text.text.count("@id(") for text in platform)
    mails = [one.name for one in known if one.name.startswith("mail.send")]
    budgets = [one.name for one in known if one.name.startswith("ads.set_budget")]
    listed = 'context.tenant.hasTag("recipients") && context.tenant.getTag("recipients").containsAll(context.input.to)'
    shapes: list[Callable[[int], str]] = [
        lambda n: (
            f'forbid (principal, action == Livoa::Action::"{mails[n % len(mails)]}", resource) '
            f"when {{ context.input has to }} unless {{ {listed} }};"
        ),
        lambda n: (
            f'forbid (principal, action == Livoa::Action::"{budgets[n % len(budgets)]}", resource) '
            f"when {{ context.input has weekly_amount && context.input.weekly_amount > {500_000 + n} }};"
        ),
        lambda n: (
            f'forbid (principal, action in Livoa::Action::"sideEffect", resource) '
            f'when {{ principal.app == "app-{n}" && context.call.itemsAtMost > {n} }};'
        ),
        lambda n: (
            f'forbid (principal, action in Livoa::Action::"external", resource) '
            f'when {{ context.flow.externalHosts.contains("host-{n}.example") }};'
        ),
        lambda n: f'forbid (principal, action, resource) when {{ principal.app == "blocked-{n}" }};',
    ]
    for n in range(count - have - len(own)):
        own.append(f'@id("t/contoso/p{n}") ' + shapes[n % len(shapes)](n))
    return PolicyTexts(platform, (), (PolicyText("tenants/contoso/bench.cedar", "\n".join(own)),))


def _folder(name: str) -> tuple[PolicyText, ...]:
    folder = CATALOG / "policies" / name
    return tuple(PolicyText(f"{name}/{path.name}", path.read_text()) for path in sorted(folder.glob("*.cedar")))


def plan_document(steps: int, known: list[Capability]) -> dict[str, Any]:
    """Searches that feed each other, and every tenth step a mail with what was found."""
    searches = [one.name for one in known if one.name.startswith("rag.search")]
    mails = [one.name for one in known if one.name.startswith("mail.send")]
    made: list[dict[str, Any]] = []
    for n in range(steps):
        found = {"$ref": f"steps.s{n - 1}#/passages/0/title"}
        if n % 10 == 9:
            name = mails[n % len(mails)]
            inputs: dict[str, Any] = {"to": ["finance@contoso.example"], "subject": f"s{n}", "body": "b"}
            inputs |= {"lines": [{"label": "found", "value": found}]}
        else:
            query: Any = "budget" if n % 10 == 0 else {"$template": "on {it}", "it": found}
            name = searches[n % len(searches)]
            inputs = {"query": query, "top_k": 1 + n // len(searches) % 20}
        made.append({"id": f"s{n}", "capability": name, "inputs": inputs})
    return {"schema_version": "1.0", "goal": "bench", "steps": made}


def _tenant(known: list[Capability]) -> TenantConfig:
    return TenantConfig(
        tenant_id="contoso",
        display_name="Contoso",
        enabled_capabilities=tuple(one.name for one in known),
        egress_hosts=("mail-relay.example", "127.0.0.1"),
        directories={"recipients": ("finance@contoso.example",)},
    )


def _percentiles(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    at = min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[at], 2),
        "best_ms": round(ordered[0], 2),
    }


async def measure(steps: int, policy_count: int, capability_count: int, rounds: int) -> dict[str, Any]:
    """Run the rounds and return the figures."""
    known = capabilities(capability_count)
    catalog, tenant = MemoryCatalog(known), _tenant(known)
    checked = check_plan(plan_document(steps, known), tenant=tenant, catalog=catalog)
    assert checked.plan is not None, checked.violations
    library = PolicyLibrary(_Texts(policies(policy_count, known)), catalog)
    started = time.perf_counter()
    in_force = await library.in_force("contoso")
    load_s = time.perf_counter() - started
    engine = GovernedPolicyEngine(catalog, library)
    asked = RunRequest(intent="Mail the findings to finance@contoso.example", context=RunContext())
    provenance = PlanProvenance(source="caller")

    def request() -> PlanPolicyRequest:
        assert checked.plan is not None
        return PlanPolicyRequest(
            principal=PRINCIPAL, tenant=tenant, run_id="bench", plan_hash=checked.plan.plan_hash,
            capability_names=checked.plan.capability_names, plan=checked.plan.plan, request=asked, provenance=provenance,
        )  # fmt: skip

    whole, spent, facts, single = [], [], [], []
    for _ in range(rounds):
        flow_facts._KEPT.clear()  # every plan is new when it is vetted; a kept flow would flatter
        question = request()
        started, worked = time.perf_counter(), time.process_time()
        decision = await engine.decide_plan(question)
        whole.append((time.perf_counter() - started) * 1000)
        spent.append((time.process_time() - worked) * 1000)
        assert decision.verdict is Verdict.ALLOW, decision.reasons
        flow_facts._KEPT.clear()
        started = time.perf_counter()
        plan_facts(checked.plan.plan, catalog.capabilities, asked, provenance, tenant)
        facts.append((time.perf_counter() - started) * 1000)
        single.append(await _one_step(engine, request(), known))
    return {
        "steps": steps, "policies": len(in_force.book.rules), "capabilities": capability_count, "rounds": rounds,
        "plan": _percentiles(whole), "plan_cpu": _percentiles(spent), "facts_only": _percentiles(facts),
        "step": _percentiles(single),
        "load_ms": round(load_s * 1000, 1), "python": sys.version.split()[0],
    }  # fmt: skip


async def _one_step(engine: GovernedPolicyEngine, plan: PlanPolicyRequest, known: list[Capability]) -> float:
    assert plan.plan is not None
    step = plan.plan.steps[9]
    capability = next(one for one in known if one.name == step.capability)
    inputs = {
        "to": ["finance@contoso.example"],
        "subject": "s9",
        "body": "b",
        "lines": [{"label": "found", "value": "x"}],
    }
    request = StepPolicyRequest(
        principal=plan.principal, tenant=plan.tenant, run_id=plan.run_id, plan_hash=plan.plan_hash, step_id=step.id,
        capability_name=capability.name, capability=capability, inputs=inputs, plan=plan.plan, request=plan.request,
        provenance=plan.provenance,
    )  # fmt: skip
    started = time.perf_counter()
    decision = await engine.decide_step(request)
    spent = (time.perf_counter() - started) * 1000
    assert decision.allows, decision.reasons
    return spent


def main() -> None:
    """Measure on one core and print JSON."""
    parser = argparse.ArgumentParser(description="Time of facts and policy decisions.")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--capabilities", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(json.dumps(asyncio.run(measure(options.steps, options.policies, options.capabilities, options.rounds))))


if __name__ == "__main__":
    main()
