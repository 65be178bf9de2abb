"""What the decision point remembers between questions never answers for something else: every change is seen at the next one."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.policy import Verdict
from engine.domain.principal import Role
from engine.domain.run import PlanProvenance
from policy import cedar
from policy.cedar import CedarRequest, Entities, PolicySet, Schema, Uid, decide, policies_of
from tests.unit.policy.conftest import Gate, Texts, person, tenant

MAIL: dict[str, Any] = {
    "id": "tell",
    "capability": "mail.send",
    "inputs": {"to": ["finance@contoso.example"], "subject": "Report", "body": "text"},
}


def forbid(name: str, when: str) -> str:
    whom = 'principal in Livoa::Tenant::"contoso", action in Livoa::Action::"call", resource'
    return f'@id("t/contoso/{name}") @severity("hard") @message("no {name}") forbid ({whom}) when {{ {when} }};'


async def verdict(gate: Gate, **changes: Any) -> Verdict:
    decision = await gate.step("tell", MAIL["inputs"], MAIL, **changes)
    assert isinstance(decision.verdict, Verdict)
    return decision.verdict


async def test_another_configuration_of_the_tenant_is_seen_at_the_next_question(shared_gate: Gate) -> None:
    assert await verdict(shared_gate) is Verdict.ALLOW
    assert await verdict(shared_gate, tenant=tenant(egress_hosts=())) is Verdict.DENY
    assert await verdict(shared_gate, tenant=tenant(directories={"recipients": ()})) is Verdict.ESCALATE
    assert await verdict(shared_gate) is Verdict.ALLOW


async def test_another_claim_of_the_caller_is_seen_at_the_next_question() -> None:
    texts = Texts()
    admins = forbid("admins", 'principal in Livoa::Role::"Tenants.Admin"')
    texts.add("contoso", admins)
    gate = Gate(texts)
    found = []
    for claims in ({}, {"kind": "app"}, {"roles": {Role.RUNS_SUBMIT, Role.TENANTS_ADMIN}}, {"roles": frozenset()}, {}):
        decision = await gate.step("tell", MAIL["inputs"], MAIL, principal=person(**claims))
        found.append((decision.verdict, decision.policy_ids if decision.code == "policy.forbidden" else decision.code))
    assert found == [
        ("allow", ""),
        ("deny", ("t/contoso/no-mail-by-apps",)),
        ("deny", ("t/contoso/admins",)),
        ("deny", "policy.no_permit"),
        ("allow", ""),
    ]


async def test_another_author_of_the_plan_is_seen_at_the_next_question() -> None:
    texts = Texts()
    texts.add("contoso", forbid("models", 'context.call.plannedBy == "model"'))
    gate = Gate(texts)
    assert await verdict(gate) is Verdict.ALLOW
    by_model = PlanProvenance.model_validate({"source": "model", "seen_integrity": 3})
    assert await verdict(gate, provenance=by_model) is Verdict.DENY


async def test_a_forbid_that_comes_meanwhile_is_seen_at_the_next_question(gate: Gate, texts: Texts) -> None:
    assert await verdict(gate) is Verdict.ALLOW
    texts.add("contoso", forbid("stop", "true"))
    decision = await gate.step("tell", MAIL["inputs"], MAIL)
    assert (decision.verdict, decision.policy_ids) == ("deny", ("t/contoso/stop",))


USER, AGENT, CALL = Uid("L::User", "alice"), Uid("L::Agent", "a"), Uid("L::Action", "call")


def schema(region: str) -> Schema:
    return Schema(
        f"namespace L {{ entity User; entity Agent = {{ region: {region} }};"
        ' action "call" appliesTo { principal: [User], resource: [Agent], context: {} }; }'
    )


def world(region: object) -> list[dict[str, Any]]:
    return [
        {"uid": USER.wire(), "attrs": {}, "parents": []},
        {"uid": AGENT.wire(), "attrs": {"region": region}, "parents": []},
    ]


def test_entities_of_another_schema_are_read_again() -> None:
    Entities(world("uk"), schema("String"))
    with pytest.raises(cedar.CedarError, match="schema"):
        Entities(world("uk"), schema("Long"))


def test_entities_that_differ_in_one_value_are_others() -> None:
    texts = schema("String")
    policy = PolicySet({"p0": policies_of('permit (principal, action, resource) when { resource.region == "uk" };')[0]})
    request = CedarRequest(USER, CALL, AGENT, {})
    found = [
        decide([request], policy, Entities(world(region), texts), texts)[0].outcome for region in ("uk", "us", "uk")
    ]
    assert found == ["allow", "deny", "allow"]


def test_what_is_kept_is_bounded() -> None:
    texts = schema("String")
    for number in range(cedar._KEPT_ENTITIES + 10):
        Entities(world(f"region-{number}"), texts)
    before = cedar._entities_of.cache_info()
    assert before.currsize <= cedar._KEPT_ENTITIES
    Entities(world("x" * cedar._KEPT_ENTITIES_CHARS), texts)
    assert cedar._entities_of.cache_info() == before, "what is too long does not push out the others"
