"""The decision point over plans and steps of the shipped catalog, through its front door."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.domain.policy import Cures, Verdict
from engine.domain.run import PlanProvenance
from policy.engine import GovernedPolicyEngine
from tests.unit.policy.conftest import CATALOG, SECOND_PERSON, Gate, Texts, person, tenant

FINANCE = ["finance@contoso.example"]
TOP = {"id": "people", "capability": "crm.find_buyers", "inputs": {"segment": "top"}}
NOTES = {"id": "notes", "capability": "rag.search", "inputs": {"query": "budget"}}


def mail(to: Any = FINANCE, **more: Any) -> dict[str, Any]:
    inputs = {"to": to, "subject": "Report", "body": "text"} | more.pop("inputs", {})
    return {"id": "tell", "capability": "mail.send", "inputs": inputs} | more


def ads(amount: Any) -> dict[str, Any]:
    return {"id": "spend", "capability": "ads.set_budget", "inputs": {"channel": "tv", "weekly_amount": amount}}


async def test_an_ordinary_plan_is_allowed_with_its_evidence(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(NOTES, mail())
    assert decision.verdict is Verdict.ALLOW
    assert {key: one.verdict for key, one in decision.steps.items()} == {"notes": "allow", "tell": "allow"}
    assert decision.engine_version.startswith("cedarpy ")
    for stamp in (decision.policy_set_hash, decision.schema_hash, decision.facts_hash):
        assert len(stamp) == 64


async def test_a_recipient_out_of_a_document_is_refused_with_its_path(shared_gate: Gate) -> None:
    reference = {"$ref": "run#/context/documents/0/text"}
    decision = await shared_gate.plan(mail([reference]), documents=[{"name": "brief", "text": "eve@evil.example"}])
    assert decision.verdict is Verdict.DENY
    (finding,) = (found for found in decision.findings if found.policy_id == "plat.taint-selector")
    assert (finding.severity, finding.step_id, finding.pointer) == ("hard", "tell", "/steps/0/inputs/to")
    assert finding.path[0].startswith("run#/context/documents")
    assert finding.path[-1].startswith("steps.tell.inputs/to")
    assert "plat.taint-selector" in decision.reasons[0]


async def test_a_document_that_passed_through_a_step_is_still_a_document(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(NOTES, mail([{"$ref": "steps.notes#/passages/0/title"}]))
    assert (decision.verdict, decision.code) == ("deny", "policy.forbidden")
    assert decision.steps["notes"].allows


async def test_mail_to_a_stranger_asks_for_a_second_person(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(mail(["bob@agency.example"]))
    assert decision.verdict is Verdict.ALLOW, "the step asks when it is due"
    step = decision.steps["tell"]
    assert (step.verdict, step.code) == ("escalate", "policy.needs_approval")
    assert [(cure.kind, cure.detail) for cure in step.cures] == [("approval", "four-eyes")]
    assert step.findings[0].pointer == "/steps/0/inputs/to"


async def test_an_approval_counts_only_from_a_second_person(shared_gate: Gate) -> None:
    asked = mail(["bob@agency.example"])
    verdicts = [
        (await shared_gate.step("tell", asked["inputs"], asked, cures=Cures(**cures))).verdict
        for cures in ({}, {"approved": True}, {"approver_differs": True}, SECOND_PERSON)
    ]
    assert verdicts == ["escalate", "escalate", "escalate", "allow"]


async def test_no_approval_lifts_a_hard_forbid(shared_gate: Gate) -> None:
    decision = await shared_gate.step("spend", ads(250_001)["inputs"], ads(250_001), cures=Cures(**SECOND_PERSON))
    assert decision.verdict is Verdict.DENY
    assert decision.policy_ids == ("t/contoso/ad-budget-ceiling",)


async def test_personal_data_is_redacted_in_exactly_its_places(shared_gate: Gate) -> None:
    lines = [
        {"label": "sales", "value": "12"},
        {"label": "best", "value": {"$ref": "steps.people#/buyers/0/name"}},
    ]
    asked = mail(inputs={"lines": lines})
    early = await shared_gate.plan(TOP, asked)
    assert (early.steps["tell"].verdict, early.steps["tell"].code) == ("transform", "policy.needs_redaction")
    bound = asked["inputs"] | {"lines": [lines[0], {"label": "best", "value": "Amara Osei"}]}
    due = await shared_gate.step("tell", bound, TOP, asked)
    assert [(cure.kind, cure.detail) for cure in due.cures] == [("redaction", "/lines/1/value")]
    blackened = asked["inputs"] | {"lines": [lines[0], {"label": "best", "value": "[redacted]"}]}
    cured = await shared_gate.step("tell", blackened, TOP, asked, cures=Cures(redacted=("/lines/1/value",)))
    assert cured.allows
    wrong = await shared_gate.step("tell", bound, TOP, asked, cures=Cures(redacted=("/lines/0/value",)))
    assert not wrong.allows


async def test_a_claim_of_redaction_is_not_enough(shared_gate: Gate) -> None:
    asked = mail(inputs={"lines": [{"label": "best", "value": {"$ref": "steps.people#/buyers/0/name"}}]})
    bound = asked["inputs"] | {"lines": [{"label": "best", "value": "Amara Osei"}]}
    decision = await shared_gate.step("tell", bound, TOP, asked, cures=Cures(redacted=("/lines/0/value",)))
    assert not decision.allows


async def test_a_masked_literal_is_still_the_plans_and_a_claim_of_masking_is_not_enough(shared_gate: Gate) -> None:
    asked = mail(inputs={"lines": [{"label": "call", "value": "905-674-3793 now"}]})
    cured = Cures(masked=("/lines/0/value",))

    async def with_value(value: str, cures: Cures) -> bool:
        inputs = asked["inputs"] | {"lines": [{"label": "call", "value": value}]}
        return (await shared_gate.step("tell", inputs, asked, cures=cures)).allows

    assert await with_value("[redacted: PHONE_NUMBER] now", cured)
    assert not await with_value("[redacted: PHONE_NUMBER] now", Cures())
    assert not await with_value("666-666-6666 now", cured)


async def test_masking_does_not_make_labelled_data_impersonal(shared_gate: Gate) -> None:
    asked = mail(inputs={"lines": [{"label": "best", "value": {"$ref": "steps.people#/buyers/0/name"}}]})
    bound = asked["inputs"] | {"lines": [{"label": "best", "value": "Amara, [redacted: PHONE_NUMBER]"}]}
    decision = await shared_gate.step("tell", bound, TOP, asked, cures=Cures(masked=("/lines/0/value",)))
    assert [(cure.kind, cure.detail) for cure in decision.cures] == [("redaction", "/lines/0/value")]


async def test_arguments_that_are_not_known_yet_defer_and_decide_when_they_are(shared_gate: Gate) -> None:
    find = {
        "id": "fit",
        "capability": "mmm.allocate_budget",
        "inputs": {"model": {"$ref": "steps.mix#/model"}, "total_budget": 1},
    }
    mix = {"id": "mix", "capability": "mmm.fit"}
    asked = {
        "id": "spend",
        "capability": "ads.set_budget",
        "inputs": {"channel": "tv", "weekly_amount": {"$ref": "steps.mix#/weeks"}},
    }
    early = await shared_gate.plan(mix, find, asked)
    assert early.verdict is Verdict.ALLOW
    assert early.steps["spend"].verdict is Verdict.DEFERRED
    verdicts = [
        (await shared_gate.step("spend", asked["inputs"] | {"weekly_amount": amount}, mix, find, asked)).verdict
        for amount in (13, 20_001, 250_001)
    ]
    assert verdicts == ["allow", "escalate", "deny"]


async def test_a_forbid_that_only_waits_for_an_argument_refuses_nothing_yet(gate: Gate, texts: Texts) -> None:
    texts.add(
        "contoso",
        '@id("t/contoso/small") forbid (principal, action == Livoa::Action::"ads.set_budget", resource) '
        "unless { context.input has weekly_amount && context.input.weekly_amount < 100 };",
    )
    mix = {"id": "mix", "capability": "mmm.fit"}
    decision = await gate.plan(mix, ads({"$ref": "steps.mix#/weeks"}))
    assert (decision.verdict, decision.steps["spend"].verdict) == ("allow", "deferred")
    assert (await gate.plan(ads(100))).verdict is Verdict.DENY


async def test_a_literal_out_of_the_models_head_is_refused(shared_gate: Gate) -> None:
    seen = PlanProvenance(source="model", seen_integrity=0)
    refused = await shared_gate.plan(mail(["bob@agency.example"]), provenance=seen)
    assert (refused.verdict, refused.findings[0].policy_id) == ("deny", "plat.taint-selector")
    named = await shared_gate.plan(
        mail(["bob@agency.example"]), provenance=seen, intent="Mail it to bob@agency.example"
    )
    assert named.steps["tell"].verdict is Verdict.ESCALATE, "the user named him; the tenant still wants a second person"


async def test_a_condition_on_a_document_needs_a_second_person(shared_gate: Gate) -> None:
    asked = mail(when={"left": {"$ref": "steps.notes#/passages/0/title"}, "op": "eq", "right": "go"})
    decision = await shared_gate.plan(NOTES, asked)
    finding = next(one for one in decision.steps["tell"].findings if one.policy_id == "plat.taint-control")
    assert decision.steps["tell"].verdict is Verdict.ESCALATE
    assert finding.path[0].startswith("steps.notes#")


async def test_a_host_the_tenant_does_not_allow_is_refused(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(mail(), tenant=tenant(egress_hosts=()))
    assert decision.findings[0].policy_id == "plat.egress-hosts"
    assert "mail-relay.example" in decision.findings[0].message


async def test_an_undoing_is_judged_like_a_step(shared_gate: Gate) -> None:
    undo = {"capability": "ads.set_budget", "inputs": {"channel": "tv", "weekly_amount": 300_000}}
    decision = await shared_gate.plan(ads(10) | {"compensate_with": undo})
    assert decision.verdict is Verdict.DENY
    assert decision.findings[0].pointer == "/steps/0/compensate_with/inputs/weekly_amount"
    due = await shared_gate.step("spend", undo["inputs"], ads(10) | {"compensate_with": undo}, purpose="compensation")
    assert due.verdict is Verdict.DENY
    assert "undoing" in due.reasons[0]


async def test_what_stands_in_for_a_step_is_judged_with_the_plan(texts: Texts) -> None:
    texts.add(
        "contoso",
        '@id("t/contoso/no-fallback") forbid (principal, action == Livoa::Action::"insights.summarise", resource) '
        'when { context.call.purpose == "fallback" };',
    )
    gate = Gate(texts)
    known = dict(CATALOG.capabilities)
    known["rag.search"] = known["rag.search"].model_copy(update={"fallback": "insights.summarise"})
    gate.engine = GovernedPolicyEngine(cast(Any, SimpleNamespace(capabilities=known)), gate.library)
    assert (await gate.plan(NOTES)).verdict is Verdict.ALLOW, "a step that does not fall back is not asked about it"
    decision = await gate.plan(NOTES | {"on_failure": "fallback"})
    assert decision.verdict is Verdict.DENY
    assert decision.steps["notes"].policy_ids == ("t/contoso/no-fallback",)
    assert "the fallback of step notes" in decision.steps["notes"].reasons[0]
    enabled = tuple(name for name in known if name != "insights.summarise")
    lacking = await gate.plan(NOTES | {"on_failure": "fallback"}, tenant=tenant(enabled_capabilities=enabled))
    assert lacking.steps["notes"].code == "policy.capability_not_enabled"


async def test_every_item_of_a_map_is_judged(shared_gate: Gate) -> None:
    each = {
        "id": "tell",
        "for_each": {"$ref": "run#/context/values/people"},
        "max_items": 3,
        "capability": "mail.send",
        "inputs": {"to": [{"$ref": "item#/mail"}], "subject": "s", "body": "b"},
    }
    people = {"people": [{"mail": "finance@contoso.example"}, {"mail": "bob@agency.example"}]}
    verdicts = [
        (
            await shared_gate.step("tell", {"to": [to], "subject": "s", "body": "b"}, each, values=people, item=number)
        ).verdict
        for number, to in enumerate(one["mail"] for one in people["people"])
    ]
    assert verdicts == ["allow", "escalate"]


@pytest.mark.parametrize(
    ("bounds", "policy"),
    [({"max_steps": 1}, "plat.steps"), ({"max_depth": 1}, "plat.depth"), ({"max_cost_micro_usd": 10}, None)],
)
async def test_a_plan_beyond_the_bounds_is_refused(
    shared_gate: Gate, bounds: dict[str, int], policy: str | None
) -> None:
    decision = await shared_gate.plan(NOTES, TOP | {"needs": ["notes"]}, tenant=tenant(bounds=bounds))
    assert decision.verdict is Verdict.DENY
    assert policy is None or policy in decision.policy_ids


async def test_nobody_acts_for_another_tenant(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(NOTES, principal=person("fabrikam"))
    assert (decision.verdict, decision.code) == ("deny", "policy.tenant_mismatch")


async def test_without_its_role_a_principal_may_nothing(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(NOTES, principal=person(roles=frozenset()))
    assert (decision.verdict, decision.code) == ("deny", "policy.no_permit")


async def test_an_agent_in_a_foreign_region_is_refused(shared_gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    abroad = CATALOG.capabilities["rag.search"].model_copy(update={"region": "eastus"})
    capabilities = {**CATALOG.capabilities, "rag.search": abroad}
    monkeypatch.setattr(CATALOG, "_capabilities", capabilities)
    decision = await Gate().plan(NOTES)
    assert decision.findings[0].policy_id == "plat.cross-region"
    allowed = await Gate().plan(NOTES, tenant=tenant(regions=("uksouth", "eastus")))
    assert allowed.allows


async def test_a_tenant_without_policies_reads_and_asks_before_it_acts(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(NOTES, ads(1), tenant=tenant("newcomer"))
    assert (decision.steps["notes"].verdict, decision.steps["spend"].verdict) == ("allow", "escalate")


async def test_a_plan_that_was_not_shown_is_refused(shared_gate: Gate) -> None:
    assert (await shared_gate.plan(NOTES, plan=None)).code == "policy.plan_missing"


async def test_a_step_of_unknown_origin_is_not_trusted(shared_gate: Gate) -> None:
    decision = await shared_gate.step("tell", mail()["inputs"], mail(), plan=None)
    assert decision.verdict is Verdict.DENY
    assert (await shared_gate.step("notes", NOTES["inputs"], NOTES, plan=None)).allows, "reading harms nobody"


async def test_inputs_that_are_not_the_plans_are_not_trusted(shared_gate: Gate) -> None:
    decision = await shared_gate.step("tell", mail(["eve@evil.example"])["inputs"], mail())
    assert decision.findings[0].policy_id == "plat.taint-selector"


async def test_a_capability_that_is_not_the_catalogs_is_refused(shared_gate: Gate) -> None:
    forged = CATALOG.capabilities["mail.send"].model_copy(update={"side_effect": "read"})
    decision = await shared_gate.step("tell", mail()["inputs"], mail(), capability=forged)
    assert (decision.verdict, decision.code) == ("deny", "policy.capability_unknown")


async def test_missing_policies_refuse_everything(gate: Gate, texts: Texts) -> None:
    assert (await gate.plan(NOTES)).allows
    texts.broken = True
    for decision in (await gate.plan(NOTES), await gate.step("notes", NOTES["inputs"], NOTES)):
        assert (decision.verdict, decision.code) == ("deny", "policy.unavailable")
    texts.broken = False
    assert (await gate.plan(NOTES)).allows


async def test_whatever_breaks_inside_is_a_refusal(monkeypatch: pytest.MonkeyPatch, shared_gate: Gate) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("policy.engine.plan_facts", broken)
    monkeypatch.setattr("policy.engine.step_facts", broken)
    for decision in (await shared_gate.plan(NOTES), await shared_gate.step("notes", NOTES["inputs"], NOTES)):
        assert (decision.verdict, decision.code) == ("deny", "policy.error")


HALT = '["none"].contains(context.call.capability)'


async def test_a_kill_switch_reaches_runs_under_way(gate: Gate, texts: Texts) -> None:
    vetted = await gate.plan(NOTES)
    pinned = PlanProvenance(source="caller", policy_set_hash=vetted.policy_set_hash)
    texts.platform = tuple(
        type(file)(file.name, file.text.replace(HALT, HALT.replace('"none"', '"rag.search"')))
        for file in texts.platform
    )
    decision = await gate.step("notes", NOTES["inputs"], NOTES, provenance=pinned)
    assert (decision.verdict, decision.policy_ids) == ("deny", ("plat.kill-switch-capability",))


QUIET = '@id("t/contoso/quiet") forbid (principal, action == Livoa::Action::"rag.search", resource);'


async def test_a_tenants_change_does_not_reach_runs_under_way(gate: Gate, texts: Texts) -> None:
    vetted = await gate.plan(NOTES)
    pinned = PlanProvenance(source="caller", policy_set_hash=vetted.policy_set_hash)
    texts.add("contoso", QUIET)
    assert (await gate.plan(NOTES)).verdict is Verdict.DENY, "new plans meet it at once"
    due = await gate.step("notes", NOTES["inputs"], NOTES, provenance=pinned)
    assert due.allows
    assert due.policy_set_hash == vetted.policy_set_hash
    after = await gate.restarted().step("notes", NOTES["inputs"], NOTES, provenance=pinned)
    assert after.allows, "the archive outlives the process"


async def test_what_either_set_forbids_is_said_together(gate: Gate, texts: Texts) -> None:
    texts.add("contoso", QUIET)
    pinned = PlanProvenance(source="caller", policy_set_hash=(await gate.plan(mail())).policy_set_hash)
    curable = (
        '@id("plat.new") @severity("curable") @cure("approval:four-eyes") '
        'forbid (principal, action == Livoa::Action::"rag.search", resource) unless { context.cures.approved };'
    )
    texts.platform = (*texts.platform, type(texts.platform[0])("platform/new.cedar", curable))
    decision = await gate.step("notes", NOTES["inputs"], NOTES, provenance=pinned)
    assert decision.verdict is Verdict.DENY, "an approval would not help: the tenant's own policy stays"
    assert set(decision.policy_ids) == {"plat.new", "t/contoso/quiet"}


async def test_an_approval_under_one_platform_names_another_set_than_under_the_next(gate: Gate, texts: Texts) -> None:
    vetted = await gate.plan(NOTES)
    pinned = PlanProvenance(source="caller", policy_set_hash=vetted.policy_set_hash)
    extra = '@id("plat.new") forbid (principal, action == Livoa::Action::"mail.send", resource);'
    texts.platform = (*texts.platform, type(texts.platform[0])("platform/new.cedar", extra))
    decision = await gate.step("notes", NOTES["inputs"], NOTES, provenance=pinned)
    assert decision.allows
    assert decision.policy_set_hash not in ("", vetted.policy_set_hash)


async def test_a_run_whose_policies_are_forgotten_meets_todays(gate: Gate, texts: Texts) -> None:
    texts.add("contoso", QUIET)
    unknown = PlanProvenance(source="caller", policy_set_hash="0" * 64)
    decision = await gate.step("notes", NOTES["inputs"], NOTES, provenance=unknown)
    assert decision.policy_ids == ("t/contoso/quiet",)


async def test_no_value_stands_in_what_a_refusal_says(shared_gate: Gate) -> None:
    decision = await shared_gate.plan(
        mail([{"$ref": "run#/context/documents/0/text"}]), documents=[{"name": "n", "text": "eve@evil.example"}]
    )
    assert "eve@evil.example" not in decision.model_dump_json()
