"""The door to Cedar says no wherever the library, asked directly, says yes, something else, or nothing ever again.

Each test first shows, where it can, what the library does without the door.
"""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest

from policy.cedar import (
    ERROR,
    FORBIDDEN,
    INVALID_REQUEST,
    MISSING_ENTITY,
    NO_PERMIT,
    CedarError,
    CedarRequest,
    Entities,
    PolicySet,
    Schema,
    Uid,
    decide,
    policies_of,
    validation_errors,
)

LABEL = {"integrity": 3}
SCHEMA = """
namespace L {
  entity Tenant = { region: String };
  entity User in [Tenant] = { tenant: Tenant };
  entity Agent = { region?: String };
  action "sideEffect";
  action "mail" in [Action::"sideEffect"] appliesTo {
    principal: [User], resource: [Agent], context: { tenant: Tenant, integrity: Long, input: { amount?: Long } }
  };
}
"""
ALICE, MAIL, AGENT, HOME = (
    Uid("L::User", "alice"),
    Uid("L::Action", "mail"),
    Uid("L::Agent", "a"),
    Uid("L::Tenant", "t"),
)
PERMIT = "permit (principal, action, resource);"


def parsed(text: str, **names: str) -> PolicySet:
    """Policies under the ids p0, p1, … in the order of the text."""
    return PolicySet({names.get(f"p{i}", f"p{i}"): est for i, est in enumerate(policies_of(text))})


def world(*, leave_out: tuple[Uid, ...] = (), agent: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    entities = [
        {"uid": HOME.wire(), "attrs": {"region": "uk"}, "parents": []},
        {"uid": ALICE.wire(), "attrs": {"tenant": {"__entity": HOME.wire()}}, "parents": [HOME.wire()]},
        {"uid": AGENT.wire(), "attrs": agent if agent is not None else {"region": "uk"}, "parents": []},
    ]
    gone = [uid.wire() for uid in leave_out]
    return [entity for entity in entities if entity["uid"] not in gone]


def asking(**changes: Any) -> CedarRequest:
    context = {"tenant": {"__entity": HOME.wire()}, "integrity": 3, "input": {}} | changes.pop("context", {})
    return CedarRequest(
        **({"principal": ALICE, "action": MAIL, "resource": AGENT, "needs": (HOME,), "context": context} | changes)
    )


def ask(text: str, *requests: CedarRequest, schema: str | None = SCHEMA, **more: Any) -> list[Any]:
    known = Schema(schema) if schema is not None else None
    return decide(requests or [asking()], parsed(text), Entities(world(**more), known), known)


def library(
    text: str, schema: str | None = SCHEMA, entities: list[dict[str, Any]] | None = None
) -> cedarpy.AuthzResult:
    request = asking()
    wire = {"principal": ALICE.wire(), "action": MAIL.wire(), "resource": AGENT.wire(), "context": request.context}
    return cedarpy.is_authorized(wire, text, entities if entities is not None else world(), schema)


def test_a_clean_permit_is_an_allow_and_names_it() -> None:
    (answer,) = ask(PERMIT)
    assert (answer.outcome, answer.ids, answer.code) == ("allow", ("p0",), "")


def test_a_forbid_wins_and_every_satisfied_one_is_named() -> None:
    text = PERMIT + "forbid (principal, action, resource) when { context.integrity < 9 };" * 2
    (answer,) = ask(text)
    assert (answer.outcome, answer.ids, answer.code) == ("deny", ("p1", "p2"), FORBIDDEN)


def test_without_a_permit_nothing_is_allowed() -> None:
    (answer,) = ask("permit (principal, action, resource) when { context.integrity > 9 };")
    assert (answer.outcome, answer.code) == ("deny", NO_PERMIT)


def test_an_overflow_inside_a_forbid_is_a_refusal_although_the_validator_lets_it_pass() -> None:
    text = PERMIT + "forbid (principal, action, resource) when { context.integrity + 9223372036854775807 > 0 };"
    assert validation_errors(text, Schema(SCHEMA)) == []
    assert library(text).decision is cedarpy.Decision.Allow, "the library skips the forbid that fails"
    (answer,) = ask(text)
    assert (answer.outcome, answer.code) == ("deny", ERROR)
    assert "overflow" in answer.errors[0]


def test_an_attribute_that_is_not_there_is_a_refusal() -> None:
    text = PERMIT + 'forbid (principal, action, resource) when { resource.region == "moon" };'
    entities = world(agent={})
    assert library(text, None, entities).decision is cedarpy.Decision.Allow
    (answer,) = decide([asking()], parsed(text), Entities(entities, None), None)
    assert (answer.outcome, answer.code) == ("deny", ERROR)


@pytest.mark.parametrize("missing", [ALICE, AGENT, HOME], ids=["principal", "resource", "tenant"])
def test_an_entity_that_is_not_there_is_a_refusal(missing: Uid) -> None:
    text = PERMIT + 'forbid (principal, action, resource) when { resource has region && resource.region == "moon" };'
    entities = [entity for entity in world(leave_out=(missing,)) if missing != HOME or entity["uid"] != ALICE.wire()]
    if missing == HOME:
        entities.append({"uid": ALICE.wire(), "attrs": {}, "parents": []})
    assert library(text, None, entities).decision is cedarpy.Decision.Allow
    (answer,) = decide([asking()], parsed(text), Entities(entities, None), None)
    assert (answer.outcome, answer.code) == ("deny", MISSING_ENTITY)


def test_a_request_that_does_not_fit_the_schema_is_a_refusal() -> None:
    for request in (
        asking(context={"surprise": 1}),
        asking(context={"integrity": "3"}),
        asking(action=Uid("L::Action", "unknown")),
        asking(context={"integrity": 2**63}),
    ):
        (answer,) = ask(PERMIT, request)
        assert answer.outcome == "deny"
        assert answer.code in (INVALID_REQUEST, ERROR)
        assert answer.ids == ()


def test_one_bad_request_of_a_batch_spoils_no_other() -> None:
    answers = ask(PERMIT, asking(), asking(context={"surprise": 1}), asking(resource=Uid("L::Agent", "b")), asking())
    assert [answer.outcome for answer in answers] == ["allow", "deny", "deny", "allow"]
    assert [answer.code for answer in answers] == ["", INVALID_REQUEST, MISSING_ENTITY, ""]


def test_what_the_library_raises_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cedarpy, "is_authorized_batch", broken)
    answers = ask(PERMIT, asking(), asking())
    assert [(answer.outcome, answer.code) for answer in answers] == [("deny", ERROR)] * 2


def test_an_answer_too_few_is_a_refusal_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cedarpy.is_authorized_batch
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *a, **k: real(*a, **k)[:-1])
    assert [answer.code for answer in ask(PERMIT, asking(), asking())] == [ERROR, ERROR]


def test_an_answer_about_a_policy_that_is_not_in_the_set_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = {"decision": "Allow", "diagnostics": {"reason": ["other"], "errors": []}}
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *_, **__: [cedarpy.AuthzResult(stranger)])
    assert [(answer.outcome, answer.code) for answer in ask(PERMIT)] == [("deny", ERROR)]


def test_an_allow_without_a_reason_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"decision": "Allow", "diagnostics": {"reason": [], "errors": []}}
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *_, **__: [cedarpy.AuthzResult(empty)])
    assert [(answer.outcome, answer.code) for answer in ask(PERMIT)] == [("deny", NO_PERMIT)]


def test_a_request_carries_no_correlation_id() -> None:
    wire = {"principal": ALICE.wire(), "action": MAIL.wire(), "resource": AGENT.wire(), "correlation_id": None}
    with pytest.raises(TypeError):
        cedarpy.is_authorized_batch([wire], PERMIT, "[]")
    assert [answer.outcome for answer in ask(PERMIT)] == ["allow"]


def test_ids_are_ours_and_stay_with_their_policy_whatever_the_order() -> None:
    """Read as text, policies are called by position, and two may say the same @id."""
    text = '@id("same") permit (principal, action, resource);\n@id("same") forbid (principal, action, resource);'
    assert library(text).diagnostics.reasons == ["policy1"]
    one, two = policies_of(text)
    entities = Entities(world(), Schema(SCHEMA))
    for order in ({"plat.one": one, "t/x/two": two}, {"t/x/two": two, "plat.one": one}):
        (answer,) = decide([asking()], PolicySet(order), entities, Schema(SCHEMA))
        assert answer.ids == ("t/x/two",)


def test_eleven_policies_keep_the_order_of_their_text() -> None:
    text = "\n".join(f'@id("n{i}") permit (principal, action, resource);' for i in range(12))
    assert [est["annotations"]["id"] for est in policies_of(text)] == [f"n{i}" for i in range(12)]


def test_a_template_is_refused() -> None:
    with pytest.raises(CedarError) as refused:
        policies_of("permit (principal == ?principal, action, resource);")
    assert refused.value.code == "policy.template"


def test_nesting_in_the_parsed_form_is_refused_cleanly() -> None:
    deep: Any = {"Value": True}
    for _ in range(5_000):
        deep = {"!": {"arg": deep}}
    est = policies_of("permit (principal, action, resource) when { true };")[0]
    est["conditions"] = [{"kind": "when", "body": deep}]
    with pytest.raises(CedarError) as refused:
        PolicySet({"p": est})
    assert refused.value.code == "policy.set_invalid"


@pytest.mark.parametrize("junk", [{}, {"effect": "allow"}, {"effect": "permit", "principal": 7}])
def test_what_is_no_policy_is_refused(junk: dict[str, Any]) -> None:
    with pytest.raises(CedarError):
        PolicySet({"p": junk})


def test_a_set_has_a_bound() -> None:
    est = policies_of(PERMIT)[0]
    with pytest.raises(CedarError) as refused:
        PolicySet({f"p{i}": est for i in range(2_001)})
    assert refused.value.code == "policy.set_too_large"


def test_entities_that_do_not_fit_the_schema_are_refused() -> None:
    with pytest.raises(CedarError) as refused:
        Entities(world(agent={"region": 7}), Schema(SCHEMA))
    assert refused.value.code == "policy.entities_invalid"


def test_a_schema_that_is_none_is_refused() -> None:
    for document in ("namespace {", {"L": {"entityTypes": 7}}):
        with pytest.raises(CedarError) as refused:
            Schema(document)
        assert refused.value.code == "policy.schema_invalid"


def test_nothing_is_parsed_from_text_when_a_decision_is_made() -> None:
    schema, policies = Schema(SCHEMA), parsed(PERMIT)
    entities = Entities(world(), schema)
    request = asking()
    wire = {"principal": ALICE.wire(), "action": MAIL.wire(), "resource": AGENT.wire(), "context": request.context}
    result = cedarpy.is_authorized(wire, policies.handle, entities.handle, schema.handle)
    assert {result.metrics[f"{part}_pre_parsed"] for part in ("policies", "entities", "schema")} == {1}
    assert json.dumps(result.metrics["parse_policies_duration_micros"]) == "0"
