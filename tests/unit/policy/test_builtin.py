"""The built-in rules: deny unless every one of them is met."""

import pytest

from engine.domain.policy import PlanPolicyRequest, StepPolicyRequest, Verdict
from engine.domain.principal import Principal
from engine.domain.tenant import Bounds, TenantConfig
from policy.builtin import POLICY_SET_HASH, BuiltinPolicyEngine
from tests.support.world import capability

PRINCIPAL = Principal(tenant_id="contoso", subject="t:o", kind="user", client_app="cli")
TENANT = TenantConfig(
    tenant_id="contoso", display_name="C", enabled_capabilities=("calc.double",), bounds=Bounds(max_cost_micro_usd=10)
)
GOOD = {
    "principal": PRINCIPAL,
    "tenant": TENANT,
    "run_id": "r",
    "plan_hash": "h",
    "step_id": "s",
    "capability_name": "calc.double",
    "capability": capability("calc.double"),
    "inputs": {"n": 1},
}


async def decide(**changes):
    return await BuiltinPolicyEngine().decide_step(StepPolicyRequest(**(GOOD | changes)))


async def test_a_step_that_meets_every_rule_is_allowed():
    decision = await decide()
    assert decision.allows
    assert decision.policy_set_hash == POLICY_SET_HASH


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"principal": PRINCIPAL.model_copy(update={"tenant_id": "fabrikam"})}, "policy.tenant_mismatch"),
        ({"tenant": TENANT.model_copy(update={"status": "suspended"})}, "policy.tenant_suspended"),
        ({"tenant": TENANT.model_copy(update={"enabled_capabilities": ()})}, "policy.capability_not_enabled"),
        ({"capability": None}, "policy.capability_unknown"),
        ({"capability": capability("mail.send")}, "policy.capability_unknown"),
        ({"inputs": {}}, "policy.inputs_invalid"),
        ({"inputs": {"n": "1"}}, "policy.inputs_invalid"),
        ({"inputs": {"n": True}}, "policy.inputs_invalid"),
        ({"inputs": {"n": 1, "extra": 2}}, "policy.inputs_invalid"),
    ],
)
async def test_each_rule_denies_on_its_own(changes, code):
    decision = await decide(**changes)
    assert (decision.verdict, decision.code) == (Verdict.DENY, code)
    assert decision.policy_ids


async def test_reasons_name_places_and_never_values():
    decision = await decide(inputs={"n": "my-secret-value"})
    assert decision.reasons
    assert "my-secret-value" not in str(decision)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"capability_names": ("calc.double", "mail.send")}, "policy.capability_not_enabled"),
        ({"estimated_cost_micro_usd": 11}, "policy.cost_over_bounds"),
        ({"tenant": TENANT.model_copy(update={"status": "suspended"})}, "policy.tenant_suspended"),
    ],
)
async def test_a_plan_is_denied_before_anything_runs(changes, code):
    good = {
        "principal": PRINCIPAL,
        "tenant": TENANT,
        "run_id": "r",
        "plan_hash": "h",
        "capability_names": ("calc.double",),
        "estimated_cost_micro_usd": 10,
    }
    engine = BuiltinPolicyEngine()
    assert (await engine.decide_plan(PlanPolicyRequest(**good))).allows
    decision = await engine.decide_plan(PlanPolicyRequest(**(good | changes)))
    assert (decision.verdict, decision.code) == (Verdict.DENY, code)
